//! Access log configuration: files with a text format, optionally only for some response flags.

use lateen_route::format::Template;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use lateen_xds::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use lateen_xds::pb::envoy::config::accesslog::v3::{AccessLog as Message, AccessLogFilter};
use lateen_xds::pb::envoy::config::core::v3::data_source::Specifier;
use lateen_xds::pb::envoy::config::core::v3::substitution_format_string::Format;
use lateen_xds::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use lateen_xds::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;

use super::decode;
use super::store::Context;
use crate::access_log::AccessLog;
use crate::flags::Flags;

const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// Envoy's format when none is configured.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
    \"%UPSTREAM_HOST%\"\n";

/// Compiles a list of access logs.
pub(crate) fn compile(
    messages: Vec<Message>,
    context: &Context<'_>,
) -> Result<Vec<AccessLog>, Invalid> {
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| one(message, context).within_item("access_log", index))
        .collect()
}

fn one(mut message: Message, context: &Context<'_>) -> Result<AccessLog, Invalid> {
    message.name.clear();
    let only = message
        .filter
        .take()
        .map(flags)
        .transpose()
        .within("filter")?;
    let any = match message.config_type.take() {
        Some(ConfigType::TypedConfig(any)) if any.type_url == FILE => any,
        Some(ConfigType::TypedConfig(any)) => {
            return Err(Invalid::new(
                "typed_config",
                format!(
                    "access log `{}` is not supported by this proxy",
                    any.type_url
                ),
            ));
        }
        None => return Err(Invalid::new("typed_config", "is required")),
    };
    let file: FileAccessLog = decode(&any).within("typed_config")?;
    let text = match file.access_log_format {
        None => DEFAULT_FORMAT.to_owned(),
        Some(AccessLogFormat::Format(text)) if text.is_empty() => DEFAULT_FORMAT.to_owned(),
        Some(AccessLogFormat::Format(text)) => text,
        Some(AccessLogFormat::LogFormat(mut format)) => {
            // The content type is for responses made with a format.
            format.content_type.clear();
            let text = match format.format.take() {
                Some(Format::TextFormat(text)) => text,
                Some(Format::TextFormatSource(source)) => match source.specifier {
                    Some(Specifier::InlineString(text)) => text,
                    _ => {
                        return Err(Invalid::unsupported(
                            "typed_config.log_format.text_format_source",
                        ));
                    }
                },
                _ => return Err(Invalid::unsupported("typed_config.log_format.json_format")),
            };
            refuse_rest(&format).within("typed_config.log_format")?;
            text
        }
        Some(_) => return Err(Invalid::unsupported("typed_config.json_format")),
    };
    let template = Template::parse(&text).within("typed_config.log_format")?;
    Ok(AccessLog {
        template,
        file: context.logs.open(&file.path),
        only,
    })
}

/// The response flags that a log is limited to. An empty list means any flag.
fn flags(filter: AccessLogFilter) -> Result<Vec<Flags>, Invalid> {
    let Some(FilterSpecifier::ResponseFlagFilter(filter)) = filter.filter_specifier else {
        return Err(Invalid::new("", "only response flag filters are supported"));
    };
    // A flag that this proxy never sets is a valid name that never matches.
    Ok(filter
        .flags
        .iter()
        .filter_map(|name| Flags::parse(name))
        .collect())
}
