//! Access logs through the whole proxy: formats, filters, and files that are moved away.

use std::path::Path;

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{Proxy, Upstream, eventually, free_address, get, http_listener, to};

fn log(path: &Path, format: Value, filter: Value) -> Value {
    let mut log = json!({ "name": "file", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path, "logFormat": format,
    }});
    if !filter.is_null() {
        log["filter"] = filter;
    }
    log
}

fn text(format: &str) -> Value {
    json!({ "textFormatSource": { "inlineString": format } })
}

/// The lines after at least this many were written.
fn lines(path: &Path, least: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually(|| read().lines().count() >= least);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn lines_have_the_configured_form() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, object) = (folder.path().join("text"), folder.path().join("json"));
    let upstream = Upstream::start("a");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[upstream.address], json!({}));
    let format = "%REQ(:METHOD)% %REQ_WITHOUT_QUERY(:PATH)% %PATH(NQ)% %QUERY_PARAM(b)% %PROTOCOL% \
        %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %GRPC_STATUS% %UPSTREAM_CLUSTER% \
        %REQ(X-MISSING?X-PRESENT):3% %ACCESS_LOG_TYPE% %UPSTREAM_HOST% %DOWNSTREAM_PEER_URI_SAN%\n";
    let json_format = json!({
        "omitEmptyValues": true,
        "jsonFormat": { "code": "%RESPONSE_CODE%", "none": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
            "inner": { "bytes": "%BYTES_RECEIVED%", "text": "<%RESPONSE_CODE%>" } },
    });
    let address = proxy.http(
        json!([to("up", json!({}))]),
        json!({ "accessLog": [
            log(&plain, text(format), Value::Null),
            log(&object, json_format, Value::Null),
        ]}),
    );
    get(address, "/x?a=1&b=2", &["x-present: longer"]);
    let expected = format!(
        "GET /x /x 2 HTTP/1.1 200 - - - up lon DownstreamEnd {} -",
        upstream.address
    );
    assert_eq!(lines(&plain, 1), [expected]);
    assert_eq!(
        lines(&object, 1),
        ["{\"code\":200,\"inner\":{\"bytes\":0,\"text\":\"<200>\"}}"]
    );
}

#[test]
fn filters_choose_what_is_logged() {
    let header = |name: &str| json!({ "headerFilter": { "header": { "name": name, "presentMatch": true } } });
    let status = |op: &str, value: u32| {
        json!({ "statusCodeFilter": { "comparison": {
            "op": op, "value": { "defaultValue": value, "runtimeKey": "k" },
        }}})
    };
    let share = |numerator: u32| {
        json!({ "runtimeFilter": {
            "runtimeKey": "k", "percentSampled": { "numerator": numerator },
        }})
    };
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start("a");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[upstream.address], json!({}));
    proxy.cluster("none", &[], json!({}));
    // Each filter with the paths that it lets through.
    let cases = [
        (status("GE", 500), "/none"),
        (status("LE", 200), "/up /traced"),
        (status("NE", 200), "/none"),
        (
            json!({ "responseFlagFilter": { "flags": ["UH"] } }),
            "/none",
        ),
        (json!({ "responseFlagFilter": {} }), "/none"),
        (
            json!({ "grpcStatusFilter": { "statuses": ["UNAVAILABLE"] } }),
            "/none",
        ),
        (
            json!({ "grpcStatusFilter": { "statuses": ["OK"], "exclude": true } }),
            "/none",
        ),
        (header("x-traced"), "/traced"),
        (
            json!({ "andFilter": { "filters": [header("x-traced"), status("GE", 500)] } }),
            "",
        ),
        (
            json!({ "orFilter": { "filters": [header("x-traced"), status("GE", 500)] } }),
            "/traced /none",
        ),
        (
            json!({ "durationFilter": { "comparison": { "op": "GE", "value": { "defaultValue": 60000, "runtimeKey": "k" } } } }),
            "",
        ),
        (json!({ "notHealthCheckFilter": {} }), "/up /traced /none"),
        (json!({ "traceableFilter": {} }), "/traced"),
        (share(0), ""),
        (share(100), "/up /traced /none"),
        (
            json!({ "logTypeFilter": { "types": ["TcpConnectionEnd"] } }),
            "",
        ),
    ];
    let logs: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(index, (filter, _))| {
            log(
                &folder.path().join(index.to_string()),
                text("%REQ(:PATH)%\n"),
                filter.clone(),
            )
        })
        .chain([log(
            &folder.path().join("all"),
            text("%REQ(:PATH)%\n"),
            Value::Null,
        )])
        .collect();
    let mut none = to("none", json!({}));
    none["match"]["prefix"] = json!("/none");
    let address = proxy.http(
        json!([none, to("up", json!({}))]),
        json!({ "accessLog": logs }),
    );
    get(address, "/up", &[]);
    get(
        address,
        "/traced",
        &[
            "x-traced: 1",
            "x-request-id: 11111111-1111-9111-8111-111111111111",
        ],
    );
    get(address, "/none", &[]);
    lines(&folder.path().join("all"), 3);
    for (index, (filter, expected)) in cases.iter().enumerate() {
        let expected: Vec<_> = expected.split_whitespace().map(str::to_owned).collect();
        let seen = lines(&folder.path().join(index.to_string()), expected.len());
        assert_eq!(seen, expected, "{filter}");
    }
}

#[test]
fn what_is_not_implemented_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let cel = json!({ "extensionFilter": { "name": "cel", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", "expression": "true",
    }}});
    let mut proxy = Proxy::start(1);
    for (log, part) in [
        (
            log(&path, text("%NOPE%"), Value::Null),
            "access_log[0].typed_config.log_format.text_format_source",
        ),
        (
            log(&path, text("%CEL(request.host)%"), Value::Null),
            "`%CEL%` is not supported",
        ),
        (
            log(&path, text("%FILTER_STATE(x)%"), Value::Null),
            "`%FILTER_STATE%` is not supported",
        ),
        (
            log(
                &path,
                json!({ "jsonFormat": { "a": { "b": "%NOPE%" } } }),
                Value::Null,
            ),
            "json_format.a.b",
        ),
        (
            log(&path, text("x"), cel),
            "access_log[0].filter.extension_filter",
        ),
        (
            log(
                &path,
                text("x"),
                json!({ "responseFlagFilter": { "flags": ["XX"] } }),
            ),
            "filter.response_flag_filter.flags[0]",
        ),
        (
            log(Path::new(""), text("x"), Value::Null),
            "typed_config.path",
        ),
    ] {
        let listener = http_listener("l", free_address(), json!({ "accessLog": [log] }));
        let rejected = proxy.send(ResourceType::Listener, &[listener]);
        assert!(
            rejected.len() == 1 && rejected[0].reason.contains(part),
            "{part}: {rejected:?}"
        );
    }
}
