//! Access log configuration: files and standard streams, with text or JSON formats and filters.

use lateen_route::format::{JsonTemplate, Template};
use lateen_route::fraction::Fraction;
use lateen_route::header_match::HeaderMatch;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use lateen_xds::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use lateen_xds::pb::envoy::config::accesslog::v3::comparison_filter::Op;
use lateen_xds::pb::envoy::config::accesslog::v3::{
    AccessLog as Message, AccessLogFilter, ComparisonFilter,
};
use lateen_xds::pb::envoy::config::core::v3::data_source::Specifier;
use lateen_xds::pb::envoy::config::core::v3::substitution_format_string::Format as FormatMessage;
use lateen_xds::pb::envoy::config::core::v3::{SubstitutionFormatString, TypedExtensionConfig};
use lateen_xds::pb::envoy::data::accesslog::v3::AccessLogType;
use lateen_xds::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use lateen_xds::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use lateen_xds::pb::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};

use super::context::Context;
use super::decode;
use crate::access_log::{AccessLog, Format};
use crate::flags::Flags;
use crate::log_filter::{Comparison, LogFilter, Operation};

const LOGGER: &str = "type.googleapis.com/envoy.extensions.access_loggers.";

/// Envoy's format when none is configured.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
    \"%UPSTREAM_HOST%\"\n";

/// How deep filters may nest.
const MAX_DEPTH: usize = 16;

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
    let filter = message.filter.take().map(|message| filter(message, 0));
    let filter = filter.transpose().within("filter")?;
    let Some(ConfigType::TypedConfig(any)) = message.config_type.take() else {
        return Err(Invalid::new("typed_config", "is required"));
    };
    let kind = any.type_url.strip_prefix(LOGGER).unwrap_or(&any.type_url);
    let (path, format) = match kind {
        "file.v3.FileAccessLog" => file(decode(&any).within("typed_config")?),
        "stream.v3.StdoutAccessLog" => {
            let stream: StdoutAccessLog = decode(&any).within("typed_config")?;
            let stdout_access_log::AccessLogFormat::LogFormat(format) = stream
                .access_log_format
                .unwrap_or_else(|| stdout_access_log::AccessLogFormat::LogFormat(default_format()));
            Ok(("/dev/stdout".to_owned(), substitution(format)))
        }
        "stream.v3.StderrAccessLog" => {
            let stream: StderrAccessLog = decode(&any).within("typed_config")?;
            let stderr_access_log::AccessLogFormat::LogFormat(format) = stream
                .access_log_format
                .unwrap_or_else(|| stderr_access_log::AccessLogFormat::LogFormat(default_format()));
            Ok(("/dev/stderr".to_owned(), substitution(format)))
        }
        _ => Err(Invalid::new(
            "",
            format!(
                "access log `{}` is not supported by this proxy",
                any.type_url
            ),
        )),
    }
    .within("typed_config")?;
    let format = format.within("log_format").within("typed_config")?;
    Ok(AccessLog {
        format,
        file: context.logs.open(&path),
        filter,
    })
}

fn default_format() -> SubstitutionFormatString {
    SubstitutionFormatString {
        format: Some(FormatMessage::TextFormat(DEFAULT_FORMAT.to_owned())),
        ..SubstitutionFormatString::default()
    }
}

type PathAndFormat = (String, Result<Format, Invalid>);

fn file(message: FileAccessLog) -> Result<PathAndFormat, Invalid> {
    if message.path.is_empty() {
        return Err(Invalid::new("path", "is required"));
    }
    let json = |object| JsonTemplate::parse(object, false).map(Format::Json);
    let format = match message.access_log_format {
        None => text(DEFAULT_FORMAT, false),
        Some(AccessLogFormat::Format(format)) if format.is_empty() => text(DEFAULT_FORMAT, false),
        Some(AccessLogFormat::Format(format)) => text(&format, false),
        Some(AccessLogFormat::JsonFormat(object) | AccessLogFormat::TypedJsonFormat(object)) => {
            json(object)
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution(format),
    };
    Ok((message.path, format))
}

fn text(format: &str, omit_empty: bool) -> Result<Format, Invalid> {
    let missing = if omit_empty { "" } else { "-" };
    Ok(Format::Text(Template::parse(format)?, missing))
}

pub(super) fn substitution(mut message: SubstitutionFormatString) -> Result<Format, Invalid> {
    // The content type is for responses made with a format, and keys are sorted anyway.
    message.content_type.clear();
    message.json_format_options = None;
    let omit_empty = std::mem::take(&mut message.omit_empty_values);
    for (index, formatter) in std::mem::take(&mut message.formatters).iter().enumerate() {
        known_formatter(formatter).within_item("formatters", index)?;
    }
    let format = match message.format.take() {
        Some(FormatMessage::TextFormat(format)) => text(&format, omit_empty).within("text_format"),
        Some(FormatMessage::TextFormatSource(source)) => match source.specifier {
            Some(Specifier::InlineString(format)) => text(&format, omit_empty),
            Some(Specifier::InlineBytes(bytes)) => {
                text(&String::from_utf8_lossy(&bytes), omit_empty)
            }
            _ => Err(Invalid::new("", "only inline formats are supported")),
        }
        .within("text_format_source"),
        Some(FormatMessage::JsonFormat(object)) => JsonTemplate::parse(object, omit_empty)
            .map(Format::Json)
            .within("json_format"),
        None => Err(Invalid::new("format", "is required")),
    }?;
    refuse_rest(&message)?;
    Ok(format)
}

/// Formatters add commands. One whose commands are refused may be listed: the format says whether they are used.
fn known_formatter(formatter: &TypedExtensionConfig) -> Result<(), Invalid> {
    let any = formatter.typed_config.as_ref();
    let type_url = any.map_or("", |any| any.type_url.as_str());
    match type_url.strip_prefix("type.googleapis.com/envoy.extensions.formatter.") {
        Some("req_without_query.v3.ReqWithoutQuery" | "metadata.v3.Metadata" | "cel.v3.Cel") => {
            Ok(())
        }
        _ => Err(Invalid::new(
            "typed_config",
            format!("formatter `{type_url}` is not supported by this proxy"),
        )),
    }
}

pub(super) fn filter(message: AccessLogFilter, depth: usize) -> Result<LogFilter, Invalid> {
    if depth >= MAX_DEPTH {
        return Err(Invalid::new("", "nests too deep"));
    }
    let all = |filters: Vec<AccessLogFilter>| {
        let filters = filters.into_iter().enumerate();
        filters
            .map(|(index, message)| filter(message, depth + 1).within_item("filters", index))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match message.filter_specifier {
        Some(FilterSpecifier::StatusCodeFilter(message)) => LogFilter::Status(
            comparison(message.comparison).within("status_code_filter.comparison")?,
        ),
        Some(FilterSpecifier::DurationFilter(message)) => LogFilter::Duration(
            comparison(message.comparison).within("duration_filter.comparison")?,
        ),
        Some(FilterSpecifier::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(FilterSpecifier::TraceableFilter(_)) => LogFilter::Traceable,
        Some(FilterSpecifier::RuntimeFilter(message)) => LogFilter::Share {
            // There is no runtime to change the share, so that its default always counts.
            fraction: Fraction::compile(message.percent_sampled.unwrap_or_default())
                .within("runtime_filter.percent_sampled")?,
            independent: message.use_independent_randomness,
        },
        Some(FilterSpecifier::AndFilter(message)) => {
            LogFilter::And(all(message.filters).within("and_filter")?)
        }
        Some(FilterSpecifier::OrFilter(message)) => {
            LogFilter::Or(all(message.filters).within("or_filter")?)
        }
        Some(FilterSpecifier::HeaderFilter(message)) => {
            let header = message.header.unwrap_or_default();
            let header = HeaderMatch::compile(header).within("header_filter.header")?;
            LogFilter::Header(Box::new(header))
        }
        Some(FilterSpecifier::ResponseFlagFilter(message)) => {
            let flags = message.flags.iter().enumerate().map(|(index, name)| {
                let reason = || Invalid::new("", format!("`{name}` is not a response flag"));
                Flags::parse(name)
                    .ok_or_else(reason)
                    .within_item("response_flag_filter.flags", index)
            });
            LogFilter::Flags(flags.collect::<Result<_, _>>()?)
        }
        Some(FilterSpecifier::GrpcStatusFilter(message)) => LogFilter::Grpc {
            statuses: message
                .statuses
                .iter()
                .filter_map(|status| u16::try_from(*status).ok())
                .collect(),
            exclude: message.exclude,
        },
        Some(FilterSpecifier::LogTypeFilter(message)) => {
            let has = |kind: AccessLogType| message.types.contains(&kind.into()) != message.exclude;
            LogFilter::Kind {
                requests: has(AccessLogType::DownstreamEnd),
                connections: has(AccessLogType::TcpConnectionEnd),
            }
        }
        Some(FilterSpecifier::ExtensionFilter(_)) => {
            return Err(Invalid::unsupported("extension_filter"));
        }
        Some(FilterSpecifier::MetadataFilter(_)) => {
            return Err(Invalid::unsupported("metadata_filter"));
        }
        None => return Err(Invalid::new("filter_specifier", "is required")),
    })
}

fn comparison(message: Option<ComparisonFilter>) -> Result<Comparison, Invalid> {
    let message = message.ok_or_else(|| Invalid::new("", "is required"))?;
    let value = message
        .value
        .ok_or_else(|| Invalid::new("value", "is required"))?;
    let operation = match Op::try_from(message.op) {
        Ok(Op::Eq) => Operation::Equal,
        Ok(Op::Ge) => Operation::AtLeast,
        Ok(Op::Le) => Operation::AtMost,
        Ok(Op::Ne) => Operation::Different,
        Err(_) => return Err(Invalid::unsupported("op")),
    };
    Ok(Comparison {
        operation,
        value: value.default_value.into(),
    })
}
