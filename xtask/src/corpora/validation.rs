//! What Istio's validation accepts and refuses.

use anyhow::Result;
use lateen_api::{
    Duration,
    duration::ParseDurationError,
    networking::http_route::HttpRoute,
    validation::{
        Problems, destination_rule, gateway, http_policy, http_route, names, peer_authentication,
        service_entry, sidecar, virtual_service,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Case, Outcome};

/// Runs all cases.
pub(crate) fn run(cases: &Value) -> Result<Vec<Case>> {
    let cases = cases.as_array().into_iter().flatten().map(|case| {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let outcome = match verdict(case) {
            None => Outcome::NotServed,
            Some((expected, Ok(()))) if expected => Outcome::Passed,
            Some((expected, Err(_))) if !expected => Outcome::Passed,
            Some((_, Ok(()))) => Outcome::Failed("accepted".to_owned()),
            Some((_, Err(why))) => Outcome::Failed(format!("refused: {why}")),
        };
        Case {
            group: text("test").to_owned(),
            name: text("name").to_owned(),
            outcome,
        }
    });
    Ok(cases.collect())
}

/// Whether a case is to be accepted, and whether it was; `None` for what is not served.
fn verdict(case: &Value) -> Option<(bool, Result<(), String>)> {
    let field = |name: &str| {
        if case[name].is_null() {
            json!({})
        } else {
            case[name].clone()
        }
    };
    let valid = case["valid"].as_bool();
    // Older cases name a part of the expected message instead.
    let silent = case["out"].as_str().map(str::is_empty);
    let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
    Some(match case["test"].as_str()? {
        "TestValidateGateway" => (silent?, search(field("in"), gateway::specification)),
        "TestValidateServer" => (silent?, search(field("in"), gateway::server)),
        "TestValidateServerPort" => {
            let bind = text("bind");
            (
                silent?,
                search(field("in"), |port, problems| {
                    gateway::port(port, &bind, problems)
                }),
            )
        }
        "TestValidateTlsOptions" => (silent?, search(field("in"), gateway::server_tls)),
        "TestValidateCORSPolicy" => (valid?, search(field("in"), http_policy::cors)),
        "TestValidateHTTPFaultInjectionAbort" if !case["in"].is_null() => {
            (valid?, search(field("in"), http_policy::abort))
        }
        "TestValidateHTTPFaultInjectionDelay" if !case["in"].is_null() => {
            (valid?, search(field("in"), http_policy::delay))
        }
        "TestValidateHTTPRetry" => (valid?, search(field("in"), http_policy::retry)),
        "TestValidateHTTPRewrite" if !case["in"].is_null() => {
            (valid?, search(field("in"), http_route::rewrite))
        }
        "TestValidateHTTPRedirect" if !case["redirect"].is_null() => {
            (valid?, search(field("redirect"), http_route::redirect))
        }
        "TestValidateHTTPDirectResponse" => (
            valid?,
            search(field("directResponse"), http_route::direct_response),
        ),
        "TestValidateDestination" => (
            valid?,
            search(field("destination"), virtual_service::destination),
        ),
        "TestValidateHTTPRoute" | "TestValidateRootHTTPRoute" => {
            (valid?, search(field("route"), http_route::rule))
        }
        "TestValidateDelegateHTTPRoute" => {
            (valid?, search(field("route"), http_route::delegated_rule))
        }
        "TestValidateRouteDestination" => (
            valid?,
            search(
                json!({"route": field("routes")}),
                |rule: &HttpRoute, problems| {
                    http_route::destinations(&rule.route, problems);
                },
            ),
        ),
        "TestValidateVirtualService" | "TestValidateChainingVirtualService" => {
            (valid?, search(field("in"), virtual_service::specification))
        }
        "TestValidateDestinationRule" => {
            (valid?, search(field("in"), destination_rule::specification))
        }
        "TestValidateTrafficPolicy" => (
            valid?,
            search(field("in"), destination_rule::traffic_policy),
        ),
        "TestValidateConnectionPool" => (
            valid?,
            search(field("in"), destination_rule::connection_pool),
        ),
        "TestValidateLoadBalancer" => {
            (valid?, search(field("in"), destination_rule::load_balancer))
        }
        "TestValidateOutlierDetection" => (
            valid?,
            search(field("in"), destination_rule::outlier_detection),
        ),
        "TestValidateTLS" => (valid?, search(field("tls"), destination_rule::client_tls)),
        "TestValidateLocalities" => {
            let places: Vec<String> =
                serde_json::from_value(case["localities"].clone()).unwrap_or_default();
            let mut problems = Problems::at("");
            destination_rule::places(&places, &mut problems);
            (valid?, result(problems))
        }
        "TestValidateServiceEntries" => (valid?, search(field("in"), service_entry::specification)),
        "TestValidateSidecar" => (valid?, search(field("in"), sidecar::specification)),
        "TestValidatePeerAuthentication" => (valid?, search(field("in"), peer_authentication)),
        "TestValidateFQDN" => (valid?, truth(names::is_host(&text("fqdn")))),
        "TestValidateHTTPHeaderName" => (valid?, truth(names::is_header(&text("name"), true))),
        "TestValidateWildcardDomain" => (silent?, truth(names::is_wildcard_host(&text("in")))),
        "TestValidationIPAddress" => (
            case["ok"].as_bool()?,
            truth(names::is_address(&text("addr"))),
        ),
        "TestValidationIPSubnet" => (
            case["ok"].as_bool()?,
            truth(names::is_network(&text("subnet"))),
        ),
        "TestValidateDuration" => (
            case["isValid"].as_bool()?,
            length(&text("duration"), |length, problems| {
                http_policy::duration(length, "", problems);
            }),
        ),
        "TestValidateConnectTimeout" => (
            case["isValid"].as_bool()?,
            length(&text("duration"), destination_rule::connect_timeout),
        ),
        "TestValidateUriRegexRewrite" if !case["in"].is_null() => {
            (valid?, search(field("in"), http_route::regex_rewrite))
        }
        // Nothing at all is fine.
        "TestValidateHTTPFaultInjectionAbort"
        | "TestValidateHTTPFaultInjectionDelay"
        | "TestValidateHTTPRewrite"
        | "TestValidateUriRegexRewrite"
        | "TestValidateHTTPRedirect" => (valid?, Ok(())),
        "Test_validateExportTo" => (!case["wantErr"].as_bool()?, export_to(case)),
        "TestValidateWildcardDomainForVirtualServiceBoundToGateway" => {
            let name = text("in");
            let server_name = case["sni"] == true && names::is_cluster_server_name(&name);
            (
                silent?,
                truth(server_name || names::is_wildcard_host(&name)),
            )
        }
        "TestParseAutoGeneratedSNIDomain" => (
            text("err").is_empty(),
            truth(names::is_cluster_server_name(&text("in"))),
        ),
        "TestValidateLocalityLbSetting" => (
            !case["err"].as_bool()?,
            search(field("in"), destination_rule::locality),
        ),
        "TestValidatePortName" => (valid?, truth(names::is_dns_label(&text("name")))),
        "TestStrictValidateHTTPHeaderName" => {
            (valid?, truth(names::is_header(&text("name"), false)))
        }
        "TestValidateTrustDomain" => (text("err").is_empty(), truth(names::is_host(&text("in")))),
        "TestValidateWorkloadEntry" => (valid?, search(field("in"), service_entry::workload)),
        "TestValidateHTTPHeaderValue" => (
            case["expected"].is_null(),
            truth(names::is_header_value(&text("input"))),
        ),
        _ => return None,
    })
}

fn length(text: &str, check: impl FnOnce(Duration, &mut Problems)) -> Result<(), String> {
    let length = text
        .parse()
        .map_err(|error: ParseDurationError| error.to_string())?;
    let mut problems = Problems::at("");
    check(length, &mut problems);
    result(problems)
}

/// Whether namespaces that something is exported to are fine, for the kind that the case is about.
fn export_to(case: &Value) -> Result<(), String> {
    let list: Vec<String> = serde_json::from_value(case["exportTo"].clone()).unwrap_or_default();
    if case["isDestinationRuleWithSelector"] == true {
        let rule = json!({
            "host": "a", "exportTo": list, "workloadSelector": {"matchLabels": {"a": "b"}},
        });
        return search(rule, destination_rule::specification);
    }
    let mut problems = Problems::at("");
    if case["isServiceEntry"] == true {
        names::service_export_to(&list, &mut problems);
    } else {
        names::export_to(&list, &mut problems);
    }
    result(problems)
}

fn search<T: DeserializeOwned>(
    value: Value,
    check: impl FnOnce(&T, &mut Problems),
) -> Result<(), String> {
    let decoded: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let mut problems = Problems::at("");
    check(&decoded, &mut problems);
    result(problems)
}

fn result(problems: Problems) -> Result<(), String> {
    let found = problems.into_found();
    if found.is_empty() {
        return Ok(());
    }
    Err(found
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; "))
}

fn truth(holds: bool) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err("refused".to_owned())
    }
}
