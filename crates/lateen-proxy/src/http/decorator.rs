//! The operation that a route names for traces, told to the next proxy (`x-envoy-decorator-operation`; Envoy's
//! documentation of the header).
//!
//! The proxy of a client tells it in the request, that of a server in the response. Each takes away what the other side
//! told it.

use http::{HeaderMap, HeaderName, HeaderValue};

const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// Which side of a call a connection manager with tracing is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    /// Changes the head of a request whose route names `operation`; returns what the response is to tell.
    pub(super) fn on_request(
        self,
        headers: &mut HeaderMap,
        operation: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        match self {
            Self::Client => {
                if let Some(operation) = operation {
                    headers.insert(OPERATION, operation.clone());
                }
                None
            }
            // The client's name for the operation takes the place of ours.
            Self::Server => match headers.remove(OPERATION) {
                Some(told) if !told.is_empty() => None,
                _ => operation.cloned(),
            },
        }
    }

    /// Changes the head of the response.
    pub(super) fn on_response(self, headers: &mut HeaderMap, told: Option<HeaderValue>) {
        if let Some(operation) = told {
            headers.insert(OPERATION, operation);
        } else if self == Self::Client {
            headers.remove(OPERATION);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request and its response have after a manager, given what they had.
    fn check(
        side: Side,
        request: Option<&str>,
        response: Option<&str>,
        expected: [Option<&str>; 2],
    ) {
        let headers = |value: Option<&str>| -> HeaderMap {
            let value = value.map(|value| (OPERATION, HeaderValue::from_str(value).unwrap()));
            value.into_iter().collect()
        };
        let (mut sent, mut answer) = (headers(request), headers(response));
        let told = side.on_request(&mut sent, Some(&HeaderValue::from_static("own")));
        side.on_response(&mut answer, told);
        let found =
            [&sent, &answer].map(|map| map.get(OPERATION).map(|value| value.to_str().unwrap()));
        assert_eq!(found, expected, "{side:?} {request:?} {response:?}");
    }

    #[test]
    fn clients_tell_servers_and_servers_tell_clients() {
        check(Side::Client, None, None, [Some("own"), None]);
        check(
            Side::Client,
            Some("other"),
            Some("theirs"),
            [Some("own"), None],
        );
        check(Side::Server, None, None, [None, Some("own")]);
        check(Side::Server, Some("other"), None, [None, None]);
        check(Side::Server, Some(""), None, [None, Some("own")]);
        check(
            Side::Server,
            Some("other"),
            Some("app"),
            [None, Some("app")],
        );
    }
}
