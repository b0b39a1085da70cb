//! A line per request in the common combined form, written when the answer is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::respond::{Body, FullResponse};
use crate::server::{self, FullRequest, Peer};

/// What is known of a request when it comes.
pub(super) struct Line {
    peer: String,
    user: String,
    came: OffsetDateTime,
    request: String,
    referer: String,
    agent: String,
}

impl Line {
    pub(super) fn of(request: &FullRequest) -> Self {
        let peer = request.extensions().get::<Peer>();
        Self {
            peer: peer.map_or_else(
                || "-".to_owned(),
                |Peer(peer)| peer.ip().to_canonical().to_string(),
            ),
            user: user(request.headers()).unwrap_or_else(|| "-".to_owned()),
            came: OffsetDateTime::now_utc(),
            request: format!(
                "{} {} {:?}",
                request.method(),
                request
                    .uri()
                    .path_and_query()
                    .map_or("/", http::uri::PathAndQuery::as_str),
                request.version()
            ),
            referer: text(request.headers(), &header::REFERER),
            agent: text(request.headers(), &header::USER_AGENT),
        }
    }

    /// The same answer, logged when it is sent or given up.
    pub(super) fn logged_when_sent(self, response: FullResponse) -> FullResponse {
        let status = response.status().as_u16();
        response.map(|inner| {
            let counted = Counted {
                inner,
                sent: 0,
                status,
                line: self,
            };
            counted.boxed_unsync()
        })
    }

    fn text(&self, status: u16, sent: usize) -> String {
        let day =
            format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
        // The format asks for nothing that a time does not have.
        let came = self.came.format(&day).unwrap_or_default();
        let Self {
            peer,
            user,
            request,
            referer,
            agent,
            ..
        } = self;
        format!("{peer} - {user} [{came}] \"{request}\" {status} {sent} \"{referer}\" \"{agent}\"")
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map_or_else(
        || "-".to_owned(),
        |value| value.as_bytes().escape_ascii().to_string(),
    )
}

/// The user of basic authentication.
fn user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let user = decoded.split(|byte| *byte == b':').next()?;
    (!user.is_empty()).then(|| user.escape_ascii().to_string())
}

/// A body that counts what was taken of it.
struct Counted {
    inner: Body,
    sent: usize,
    status: u16,
    line: Line,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.sent += frame.data_ref().map_or(0, Bytes::len);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        server::log(&self.line.text(self.status, self.sent));
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_line_has_the_fields_of_the_combined_form() {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = "/headers?a=1".parse().expect("a path");
        let address = "[::ffff:127.0.0.1]:4711".parse().expect("an address");
        request.extensions_mut().insert(Peer(address));
        let agent = "a \"quoted\" agent".parse().expect("a header");
        request.headers_mut().insert(header::USER_AGENT, agent);
        let mut line = Line::of(&request);
        line.came = datetime!(2019-04-18 02:46:20 UTC);
        assert_eq!(
            line.text(200, 303),
            "127.0.0.1 - - [18/Apr/2019:02:46:20 +0000] \"GET /headers?a=1 HTTP/1.1\" 200 303 \"-\" \"a \\\"quoted\\\" agent\""
        );
    }
}
