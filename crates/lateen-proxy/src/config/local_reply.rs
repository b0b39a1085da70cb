//! The wording of the proxy's own answers.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use lateen_route::mutate::HeaderMutations;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::core::v3::data_source::Specifier;
use lateen_xds::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use super::access_log;
use crate::access_log::Format;
use crate::http::local_reply::{BodyFormat, LocalReplies, Mapper};

/// Compiles a `local_reply_config`.
pub(super) fn compile(mut message: pb::LocalReplyConfig) -> Result<LocalReplies, Invalid> {
    let mut mappers = Vec::new();
    for (index, message) in std::mem::take(&mut message.mappers).into_iter().enumerate() {
        mappers.push(mapper(message).within_item("mappers", index)?);
    }
    let format = message.body_format.take().map(format).transpose();
    let format = format.within("body_format")?;
    refuse_rest(&message)?;
    Ok(LocalReplies { mappers, format })
}

fn mapper(mut message: pb::ResponseMapper) -> Result<Mapper, Invalid> {
    let filter = message.filter.take();
    let filter = filter.ok_or_else(|| Invalid::new("filter", "is required"))?;
    let status = message.status_code.take().map(|status| {
        let code = u16::try_from(status.value).ok();
        let code = code.filter(|code| (200..600).contains(code));
        code.and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| Invalid::new("status_code", "must be 200 to 599"))
    });
    let headers = std::mem::take(&mut message.headers_to_add);
    let format = message.body_format_override.take().map(format).transpose();
    let mapper = Mapper {
        filter: access_log::filter(filter, 0).within("filter")?,
        status: status.transpose()?,
        body: message.body.take().map(body).transpose().within("body")?,
        format: format.within("body_format_override")?,
        headers: HeaderMutations::compile(("headers_to_add", headers), ("", Vec::new()))?,
    };
    refuse_rest(&message)?;
    Ok(mapper)
}

fn body(source: DataSource) -> Result<Bytes, Invalid> {
    match source.specifier {
        Some(Specifier::InlineString(text)) => Ok(text.into()),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.into()),
        // Files and variables of the proxy's host must not become readable through the control plane.
        _ => Err(Invalid::new("", "only inline bodies are supported")),
    }
}

fn format(mut message: SubstitutionFormatString) -> Result<BodyFormat, Invalid> {
    let content_type = std::mem::take(&mut message.content_type);
    let format = access_log::substitution(message)?;
    let content_type = match (content_type.as_str(), &format) {
        ("", Format::Text(..)) => HeaderValue::from_static("text/plain"),
        ("", Format::Json(_)) => HeaderValue::from_static("application/json"),
        (given, _) => HeaderValue::from_str(given)
            .map_err(|_| Invalid::new("content_type", "is not a valid header value"))?,
    };
    Ok(BodyFormat {
        format,
        content_type,
    })
}
