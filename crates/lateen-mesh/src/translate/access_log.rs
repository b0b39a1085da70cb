//! Access logs.

use lateen_xds::pb::envoy::{
    config::{
        accesslog::v3::{
            AccessLog, AccessLogFilter, ResponseFlagFilter, access_log_filter::FilterSpecifier,
        },
        core::v3::{
            DataSource, SubstitutionFormatString, data_source::Specifier,
            substitution_format_string::Format,
        },
    },
    extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
};

use super::build::access_log;
use crate::{Index, Proxy};

/// Name of the logger.
const FILE_LOGGER: &str = "envoy.access_loggers.file";
/// Istio's own format.
const DEFAULT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The access logs of requests and connections; none when the mesh has them off or the proxy cannot write them.
pub(super) fn logs(index: &Index, proxy: &Proxy) -> Vec<AccessLog> {
    let mesh = index.mesh();
    if mesh.access_log_file.is_empty() || !proxy.supports(FILE_LOGGER) {
        return Vec::new();
    }
    let format = match mesh.access_log_format.as_str() {
        "" => DEFAULT_FORMAT.to_owned(),
        // Each entry is a line, also when the format forgets to end it.
        format if format.ends_with('\n') => format.to_owned(),
        format => format!("{format}\n"),
    };
    let file = FileAccessLog {
        path: mesh.access_log_file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(Format::TextFormatSource(DataSource {
                specifier: Some(Specifier::InlineString(format)),
                ..DataSource::default()
            })),
            ..SubstitutionFormatString::default()
        })),
    };
    vec![access_log(FILE_LOGGER, &file)]
}

/// The access logs of a listener: connections for which there is no filter chain.
pub(super) fn listener_logs(index: &Index, proxy: &Proxy) -> Vec<AccessLog> {
    let no_route = AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    };
    let logs = logs(index, proxy).into_iter();
    logs.map(|log| AccessLog {
        filter: Some(no_route.clone()),
        ..log
    })
    .collect()
}
