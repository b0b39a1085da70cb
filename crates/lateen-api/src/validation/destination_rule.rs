//! Checks of destination rules.

use std::collections::BTreeSet;

use super::{
    Problems,
    http_policy::duration,
    names::{export_to, is_dns_label, is_port, is_wildcard_host},
};
use crate::Duration;
use crate::networking::{
    destination_rule::DestinationRuleSpec,
    traffic_policy::{
        ClientTlsMode, ClientTlsSettings, ConnectionPool, ConsistentHash, LoadBalancer,
        LocalityLbSetting, OutlierDetection, PortTrafficPolicy, TrafficPolicy,
    },
};

/// Longest time that connecting may take.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Largest Maglev table.
const MAX_TABLE: u64 = 5_000_011;

/// Checks a specification.
pub fn specification(spec: &DestinationRuleSpec, problems: &mut Problems) {
    problems.demand(
        is_wildcard_host(&spec.host),
        "host",
        format!("{:?} is not a host name", spec.host),
    );
    if let Some(policy) = &spec.traffic_policy {
        problems.field("trafficPolicy", |problems| traffic_policy(policy, problems));
    }
    let mut seen = BTreeSet::new();
    problems.each("subsets", &spec.subsets, |problems, subset| {
        problems.demand(
            is_dns_label(&subset.name),
            "name",
            "a subset's name has letters, digits and dashes",
        );
        problems.demand(
            seen.insert(&subset.name),
            "name",
            format!("{:?} is there twice", subset.name),
        );
        if let Some(policy) = &subset.traffic_policy {
            problems.field("trafficPolicy", |problems| traffic_policy(policy, problems));
        }
    });
    export_to(&spec.export_to, problems);
    let selected = spec.workload_selector.is_some();
    problems.demand(
        !selected || spec.export_to.iter().all(|target| target == "."),
        "exportTo",
        "a rule with a workloadSelector is for its own namespace alone",
    );
    if let Some(selector) = &spec.workload_selector {
        problems.demand(
            !selector.match_labels.is_empty(),
            "workloadSelector",
            "a selector needs labels",
        );
    }
}

/// Checks a traffic policy.
pub fn traffic_policy(policy: &TrafficPolicy, problems: &mut Problems) {
    let empty = *policy == TrafficPolicy::default();
    if empty {
        problems.add("a traffic policy sets something");
    }
    settings(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        problems,
    );
    problems.each(
        "portLevelSettings",
        &policy.port_level_settings,
        |problems, level: &PortTrafficPolicy| {
            match &level.port {
                Some(port) => problems.demand(is_port(port.number), "port", "a port is 1 to 65535"),
                None => problems.add_to("port", "the port is missing"),
            }
            settings(
                level.load_balancer.as_ref(),
                level.connection_pool.as_ref(),
                level.outlier_detection.as_ref(),
                level.tls.as_ref(),
                problems,
            );
        },
    );
    if let Some(tunnel) = &policy.tunnel {
        problems.field("tunnel", |problems| {
            let known = matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST");
            problems.demand(known, "protocol", "a tunnel is made by CONNECT or POST");
            problems.demand(
                !tunnel.target_host.is_empty(),
                "targetHost",
                "the host at the end is missing",
            );
            problems.demand(
                is_port(tunnel.target_port),
                "targetPort",
                "a port is 1 to 65535",
            );
        });
    }
    if let Some(budget) = &policy.retry_budget {
        let valid = budget
            .percent
            .is_none_or(|percent| (0.0..=100.0).contains(&percent));
        problems.demand(valid, "retryBudget", "a share is 0 to 100 percent");
    }
}

fn settings(
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTlsSettings>,
    problems: &mut Problems,
) {
    if let Some(balancer) = balancer {
        problems.field("loadBalancer", |problems| load_balancer(balancer, problems));
    }
    if let Some(pool) = pool {
        problems.field("connectionPool", |problems| connection_pool(pool, problems));
    }
    if let Some(outlier) = outlier {
        problems.field("outlierDetection", |problems| {
            outlier_detection(outlier, problems)
        });
    }
    if let Some(tls) = tls {
        problems.field("tls", |problems| client_tls(tls, problems));
    }
}

/// Checks load balancing.
pub fn load_balancer(balancer: &LoadBalancer, problems: &mut Problems) {
    if let Some(hash) = &balancer.consistent_hash {
        problems.field("consistentHash", |problems| consistent_hash(hash, problems));
    }
    if let Some(setting) = &balancer.locality_lb_setting {
        problems.field("localityLbSetting", |problems| locality(setting, problems));
    }
}

fn consistent_hash(hash: &ConsistentHash, problems: &mut Problems) {
    if let Some(cookie) = &hash.http_cookie {
        problems.field("httpCookie", |problems| {
            problems.demand(!cookie.name.is_empty(), "name", "a cookie needs a name");
        });
    }
    if let Some(size) = hash.maglev.as_ref().and_then(|maglev| maglev.table_size) {
        problems.field("maglev", |problems| {
            let valid = size <= MAX_TABLE && is_prime(size);
            problems.demand(
                valid,
                "tableSize",
                format!("a size is a prime up to {MAX_TABLE}"),
            );
        });
    }
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// Checks preference by place.
pub fn locality(setting: &LocalityLbSetting, problems: &mut Problems) {
    let exclusive = setting.distribute.is_empty()
        || (setting.failover.is_empty() && setting.failover_priority.is_empty());
    if !exclusive {
        problems.add("distribute excludes failover and failoverPriority");
    }
    let by_region = |key: &String| key.split('=').next() == Some("topology.kubernetes.io/region");
    problems.demand(
        setting.failover.is_empty() || !setting.failover_priority.iter().any(by_region),
        "failoverPriority",
        "failover between regions excludes an order by region",
    );
    let mut sources = Vec::new();
    problems.each("distribute", &setting.distribute, |problems, shares| {
        let total: u64 = shares.to.values().map(|share| u64::from(*share)).sum();
        problems.demand(
            total == 100,
            "to",
            format!("the shares add up to {total}, not to 100"),
        );
        problems.demand(
            shares.to.values().all(|share| *share > 0),
            "to",
            "a share of 0 means nothing: leave it out",
        );
        places(&shares.to.keys().cloned().collect::<Vec<_>>(), problems);
        sources.push(shares.from.clone());
    });
    problems.field("distribute", |problems| places(&sources, problems));
    problems.each("failover", &setting.failover, |problems, failover| {
        let wild = |region: &str| region.is_empty() || region.contains('*') || region.contains('/');
        if wild(&failover.from) || wild(&failover.to) {
            problems.add("failover is between regions: name one in from and to");
        }
        if failover.from == failover.to {
            problems.add("a region cannot stand in for itself");
        }
    });
}

/// Places must be well formed and must not overlap, `region/*` and `region/zone` for example.
pub fn places(places: &[String], problems: &mut Problems) {
    for place in places {
        let parts: Vec<&str> = place.split('/').collect();
        let wild = parts.iter().position(|part| *part == "*");
        let inner = wild.is_some_and(|index| index + 1 < parts.len());
        let partial = parts
            .iter()
            .any(|part| part.len() > 1 && part.contains('*'));
        if parts.len() > 3 || inner || partial || parts.iter().any(|part| part.is_empty()) {
            problems.add(format!(
                "{place:?} is not of the form region/zone/subzone, with * at the end at most"
            ));
        }
    }
    let stem = |place: &str| place.trim_end_matches('*').trim_end_matches('/').to_owned();
    for (index, place) in places.iter().enumerate() {
        let mine = stem(place);
        for other in &places[index + 1..] {
            let theirs = stem(other);
            let within =
                |a: &str, b: &str| a.is_empty() || b == a || b.starts_with(&format!("{a}/"));
            if within(&mine, &theirs) || within(&theirs, &mine) {
                problems.add(format!("{place:?} and {other:?} overlap"));
            }
        }
    }
}

/// Checks limits of connections.
pub fn connection_pool(pool: &ConnectionPool, problems: &mut Problems) {
    if pool.tcp.is_none() && pool.http.is_none() {
        problems.add("a connection pool sets tcp or http");
    }
    if let Some(http) = &pool.http {
        problems.field("http", |problems| {
            let counts = [
                ("http1MaxPendingRequests", http.http1_max_pending_requests),
                ("http2MaxRequests", http.http2_max_requests),
                ("maxRequestsPerConnection", http.max_requests_per_connection),
                ("maxRetries", http.max_retries),
                ("maxConcurrentStreams", http.max_concurrent_streams),
            ];
            for (name, count) in counts {
                problems.demand(
                    count.unwrap_or_default() >= 0,
                    name,
                    "a limit is 0 (unset) or more",
                );
            }
            if let Some(timeout) = http.idle_timeout {
                duration(timeout, "idleTimeout", problems);
            }
            if let Some(keep_alive) = &http.http2_keep_alive {
                problems.field("http2KeepAlive", |problems| {
                    let timed = keep_alive.interval.is_some() && keep_alive.timeout.is_some();
                    problems.demand(timed, "interval", "interval and timeout go together");
                });
            }
            let upgraded = http.h2_upgrade_policy
                == Some(crate::networking::traffic_policy::H2UpgradePolicy::Upgrade);
            problems.demand(
                !(upgraded && http.use_client_protocol),
                "useClientProtocol",
                "the client's version cannot be both kept and upgraded",
            );
        });
    }
    if let Some(tcp) = &pool.tcp {
        problems.field("tcp", |problems| {
            problems.demand(
                tcp.max_connections.unwrap_or_default() >= 0,
                "maxConnections",
                "a limit is 0 (unset) or more",
            );
            if let Some(timeout) = tcp.connect_timeout {
                connect_timeout(timeout, problems);
            }
            if let Some(life) = tcp.max_connection_duration {
                duration(life, "maxConnectionDuration", problems);
            }
        });
    }
}

/// Checks the time that connecting may take.
pub fn connect_timeout(timeout: Duration, problems: &mut Problems) {
    duration(timeout, "connectTimeout", problems);
    problems.demand(
        timeout <= MAX_CONNECT_TIMEOUT,
        "connectTimeout",
        "connecting takes an hour at most",
    );
}

/// Checks outlier detection.
pub fn outlier_detection(outlier: &OutlierDetection, problems: &mut Problems) {
    for (name, time) in [
        ("interval", outlier.interval),
        ("baseEjectionTime", outlier.base_ejection_time),
    ] {
        if let Some(time) = time {
            duration(time, name, problems);
        }
    }
    let shares = [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ];
    for (name, share) in shares {
        problems.demand(
            share.is_none_or(|share| (0..=100).contains(&share)),
            name,
            "a share is 0 to 100 percent",
        );
    }
    problems.demand(
        outlier
            .consecutive_local_origin_failures
            .unwrap_or_default()
            == 0
            || outlier.split_external_local_origin_errors,
        "consecutiveLocalOriginFailures",
        "local failures are counted only with splitExternalLocalOriginErrors",
    );
}

/// Checks TLS of a client.
pub fn client_tls(tls: &ClientTlsSettings, problems: &mut Problems) {
    problems.demand(
        tls.insecure_skip_verify != Some(true)
            || (tls.ca_certificates.is_empty() && tls.subject_alt_names.is_empty()),
        "insecureSkipVerify",
        "nothing is verified: caCertificates and subjectAltNames have no meaning",
    );
    problems.demand(
        tls.insecure_skip_verify != Some(true)
            || tls.mode != ClientTlsMode::Simple
            || tls.credential_name.is_empty(),
        "insecureSkipVerify",
        "nothing is verified: the secret of mode SIMPLE has no meaning",
    );
    problems.demand(
        tls.credential_name.is_empty() || tls.ca_crl.is_empty(),
        "caCrl",
        "the list of revoked certificates comes from the secret",
    );
    let files = !tls.client_certificate.is_empty() || !tls.private_key.is_empty();
    match tls.mode {
        ClientTlsMode::Mutual if tls.credential_name.is_empty() => {
            problems.demand(
                !tls.client_certificate.is_empty(),
                "clientCertificate",
                "the client's certificate is missing",
            );
            problems.demand(
                !tls.private_key.is_empty(),
                "privateKey",
                "the client's private key is missing",
            );
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual if !tls.credential_name.is_empty() => {
            let ca = !tls.ca_certificates.is_empty();
            problems.demand(
                !files && !ca,
                "credentialName",
                "certificates are in the secret or in files, not both",
            );
        }
        ClientTlsMode::IstioMutual => {
            let own = files || !tls.ca_certificates.is_empty() || !tls.credential_name.is_empty();
            problems.demand(
                !own,
                "mode",
                "the mesh's own certificates are used: name no others",
            );
        }
        _ => {}
    }
}
