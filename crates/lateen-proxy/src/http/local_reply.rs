//! How the connection manager words the answers of the proxy itself (`local_reply_config`).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use lateen_route::mutate::HeaderMutations;

use crate::access_log::Format;
use crate::log_filter::LogFilter;
use crate::record::Record;

/// The rules.
#[derive(Debug)]
pub(crate) struct LocalReplies {
    /// The first that fits changes an answer.
    pub(crate) mappers: Vec<Mapper>,
    /// For answers whose mapper has no format of its own; nothing: the text as it is.
    pub(crate) format: Option<BodyFormat>,
}

/// A change of the answers that fit its condition.
#[derive(Debug)]
pub(crate) struct Mapper {
    pub(crate) filter: LogFilter,
    pub(crate) status: Option<StatusCode>,
    pub(crate) body: Option<Bytes>,
    pub(crate) format: Option<BodyFormat>,
    pub(crate) headers: HeaderMutations,
}

/// How a body is made of an answer's text.
#[derive(Debug)]
pub(crate) struct BodyFormat {
    pub(crate) format: Format,
    pub(crate) content_type: HeaderValue,
}

impl LocalReplies {
    /// Changes an answer, whose request `record` is about. The type of its content is set if the body is another one now.
    pub(super) fn rewrite(
        &self,
        record: &mut Record,
        headers: &mut HeaderMap,
        status: &mut StatusCode,
        body: &mut Bytes,
    ) {
        let before = body.clone();
        record.response_headers.clone_from(headers);
        let mut mappers = self.mappers.iter();
        let mapper = mappers.find(|mapper| mapper.filter.wants(record));
        if let Some(mapper) = mapper {
            if let Some(text) = &mapper.body {
                *body = text.clone();
            }
            mapper.headers.add(headers, record);
            if let Some(other) = mapper.status {
                *status = other;
                record.status = other.as_u16();
            }
        }
        let of_mapper = mapper.and_then(|mapper| mapper.format.as_ref());
        let Some(format) = of_mapper.or(self.format.as_ref()) else {
            if *body != before {
                let plain = HeaderValue::from_static("text/plain");
                headers.insert(http::header::CONTENT_TYPE, plain);
            }
            return;
        };
        record.response_headers.clone_from(headers);
        record.local_body = String::from_utf8_lossy(body).into_owned();
        let mut text = String::new();
        format.format.write(record, &mut text);
        record.local_body.clear();
        *body = text.into();
        if *body != before {
            let content_type = format.content_type.clone();
            headers.insert(http::header::CONTENT_TYPE, content_type);
        } else {
            let content_type = headers.entry(http::header::CONTENT_TYPE);
            content_type.or_insert_with(|| format.content_type.clone());
        }
    }
}
