//! Actions of routes.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use lateen_xds::pb::envoy::config::core::v3::{DataSource, RoutingPriority, data_source};
use lateen_xds::pb::envoy::config::route::v3 as pb;
use lateen_xds::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
};
use lateen_xds::pb::envoy::config::route::v3::weighted_cluster::{
    RandomValueSpecifier, cluster_weight,
};

use super::{duration, mutations, upgrade};
use crate::balance::subset::labels;
use crate::constraint::{header_name, not_empty, one_line};
use crate::filter::PerFilter;
use crate::fraction::Fraction;
use crate::hash::HashPolicy;
use crate::internal_redirect::InternalRedirects;
use crate::mutate::{HeaderMutations, Mutations};
use crate::redirect::Redirect;
use crate::retry::RetryPolicy;
use crate::rewrite::{HostRewrite, PathRewrite, RegexRewrite};
use crate::route::{Action, Forward, Mirror, Target, WeightedCluster};
use crate::{Invalid, Within, refuse_rest};

/// Time for the whole response when a route names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn compile(action: pb::route::Action) -> Result<Action, Invalid> {
    Ok(match action {
        pb::route::Action::Route(route) => {
            Action::Forward(Box::new(forward(route).within("route")?))
        }
        pb::route::Action::Redirect(redirect) => {
            Action::Redirect(Redirect::compile(redirect).within("redirect")?)
        }
        pb::route::Action::DirectResponse(response) => {
            direct(response).within("direct_response")?
        }
        pb::route::Action::FilterAction(_) => return Err(Invalid::unsupported("filter_action")),
        pb::route::Action::NonForwardingAction(_) => {
            return Err(Invalid::unsupported("non_forwarding_action"));
        }
    })
}

fn direct(mut message: pb::DirectResponseAction) -> Result<Action, Invalid> {
    let status = u16::try_from(std::mem::take(&mut message.status))
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Invalid::new("status", "must be 200 to 599"))?;
    let body = match message.body.take() {
        None => Vec::new(),
        Some(DataSource {
            specifier,
            watched_directory: None,
        }) => match specifier {
            Some(data_source::Specifier::InlineString(text)) => text.into_bytes(),
            Some(data_source::Specifier::InlineBytes(bytes)) => bytes,
            // Files and variables of the proxy's host must not become readable through the control plane.
            _ => return Err(Invalid::unsupported("body")),
        },
        Some(_) => return Err(Invalid::unsupported("body.watched_directory")),
    };
    refuse_rest(&message)?;
    Ok(Action::Direct {
        status,
        body: body.into(),
    })
}

fn forward(mut message: pb::RouteAction) -> Result<Forward, Invalid> {
    let high_priority = match RoutingPriority::try_from(std::mem::take(&mut message.priority)) {
        Ok(priority) => priority == RoutingPriority::High,
        Err(_) => return Err(Invalid::new("priority", "is not a known priority")),
    };
    let subset = labels(message.metadata_match.take().as_ref());
    message.include_vh_rate_limits = None;
    let target = match message.cluster_specifier.take() {
        Some(ClusterSpecifier::Cluster(name)) => {
            not_empty("cluster", &name)?;
            Target::Cluster(name)
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            Target::Header(HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                Invalid::new(
                    "cluster_header",
                    format!("`{name}` is not a valid header name"),
                )
            })?)
        }
        Some(ClusterSpecifier::WeightedClusters(clusters)) => {
            weighted(clusters).within("weighted_clusters")?
        }
        Some(_) => return Err(Invalid::unsupported("cluster_specifier_plugin")),
        None => return Err(Invalid::new("cluster_specifier", "is required")),
    };
    let path_rewrite = path_rewrite(&mut message)?;
    let host_rewrite = match message.host_rewrite_specifier.take() {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            one_line("host_rewrite_literal", &host)?;
            Some(HostRewrite::Literal(host))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => {
            auto.value.then_some(HostRewrite::Endpoint)
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => Some(HostRewrite::Header(
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                Invalid::new(
                    "host_rewrite_header",
                    format!("`{name}` is not a valid header name"),
                )
            })?,
        )),
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => Some(HostRewrite::Path(
            RegexRewrite::compile(rewrite).within("host_rewrite_path_regex")?,
        )),
        Some(_) => return Err(Invalid::unsupported("host_rewrite")),
    };
    let mut timeout = match message.timeout.take() {
        None => Some(DEFAULT_TIMEOUT),
        Some(time) => Some(duration(time).within("timeout")?).filter(|time| !time.is_zero()),
    };
    let grpc_timeout_max = message
        .max_grpc_timeout
        .take()
        .map(duration)
        .transpose()
        .within("max_grpc_timeout")?;
    let mut grpc_timeout_offset = message
        .grpc_timeout_offset
        .take()
        .map(duration)
        .transpose()
        .within("grpc_timeout_offset")?;
    let mut stream_limit = None;
    let mut grpc_stream_max = None;
    if let Some(mut stream) = message.max_stream_duration.take() {
        stream_limit = stream
            .max_stream_duration
            .take()
            .map(duration)
            .transpose()
            .within("max_stream_duration.max_stream_duration")?
            .filter(|limit| !limit.is_zero());
        // With these limits there is no time for the response alone.
        timeout = None;
        grpc_stream_max = stream
            .grpc_timeout_header_max
            .take()
            .map(duration)
            .transpose()
            .within("max_stream_duration.grpc_timeout_header_max")?;
        grpc_timeout_offset = stream
            .grpc_timeout_header_offset
            .take()
            .map(duration)
            .transpose()
            .within("max_stream_duration.grpc_timeout_header_offset")?
            .or(grpc_timeout_offset);
        refuse_rest(&stream).within("max_stream_duration")?;
    }
    let idle_timeout = message
        .idle_timeout
        .take()
        .map(duration)
        .transpose()
        .within("idle_timeout")?;
    let retry = message
        .retry_policy
        .take()
        .map(RetryPolicy::compile)
        .transpose()
        .within("retry_policy")?;
    let mut hash = Vec::new();
    for (index, policy) in std::mem::take(&mut message.hash_policy)
        .into_iter()
        .enumerate()
    {
        hash.push(HashPolicy::compile(policy).within_item("hash_policy", index)?);
    }
    let mut mirrors = Vec::new();
    for (index, policy) in std::mem::take(&mut message.request_mirror_policies)
        .into_iter()
        .enumerate()
    {
        mirrors.push(mirror(policy).within_item("request_mirror_policies", index)?);
    }
    let upgrades = upgrade::compile(std::mem::take(&mut message.upgrade_configs))?;
    let internal_redirects = message
        .internal_redirect_policy
        .take()
        .map(InternalRedirects::compile)
        .transpose()
        .within("internal_redirect_policy")?;
    let code = std::mem::take(&mut message.cluster_not_found_response_code);
    let cluster_not_found = match ClusterNotFoundResponseCode::try_from(code) {
        Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(ClusterNotFoundResponseCode::NotFound) => StatusCode::NOT_FOUND,
        Ok(ClusterNotFoundResponseCode::InternalServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        Err(_) => {
            return Err(Invalid::new(
                "cluster_not_found_response_code",
                "is not a known code",
            ));
        }
    };
    let append_forwarded_host = std::mem::take(&mut message.append_x_forwarded_host);
    refuse_rest(&message)?;
    Ok(Forward {
        target,
        path_rewrite,
        host_rewrite,
        append_forwarded_host,
        timeout,
        grpc_timeout_max,
        grpc_timeout_offset: grpc_timeout_offset.unwrap_or_default(),
        stream_limit,
        grpc_stream_max,
        idle_timeout,
        retry,
        hash,
        mirrors,
        cluster_not_found,
        upgrades,
        internal_redirects,
        high_priority,
        subset,
    })
}

fn path_rewrite(message: &mut pb::RouteAction) -> Result<Option<PathRewrite>, Invalid> {
    let prefix = std::mem::take(&mut message.prefix_rewrite);
    let full = std::mem::take(&mut message.path_rewrite);
    one_line("prefix_rewrite", &prefix)?;
    let regex = message.regex_rewrite.take();
    Ok(match (prefix.is_empty(), regex, full.is_empty()) {
        (true, None, true) => None,
        (false, None, true) => Some(PathRewrite::Prefix(prefix)),
        (true, Some(regex), true) => Some(PathRewrite::regex(regex).within("regex_rewrite")?),
        (true, None, false) => Some(PathRewrite::Full(full)),
        _ => {
            return Err(Invalid::new(
                "prefix_rewrite",
                "only one way to rewrite the path may be set",
            ));
        }
    })
}

fn weighted(mut message: pb::WeightedCluster) -> Result<Target, Invalid> {
    // Names a runtime layer, which does not exist here.
    message.runtime_key_prefix.clear();
    let stated = message
        .total_weight
        .take()
        .map(|value| u64::from(value.value));
    let mut clusters = Vec::new();
    for (index, mut cluster) in std::mem::take(&mut message.clusters)
        .into_iter()
        .enumerate()
    {
        let compiled = (|| {
            let mutations = mutations!(cluster);
            let filters = PerFilter::compile(std::mem::take(&mut cluster.typed_per_filter_config))?;
            let host_rewrite = cluster
                .host_rewrite_specifier
                .take()
                .map(|cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host);
            let name = std::mem::take(&mut cluster.name);
            let weight = cluster.weight.take().map_or(0, |value| value.value.into());
            let subset = labels(cluster.metadata_match.take().as_ref());
            refuse_rest(&cluster)?;
            if name.is_empty() {
                return Err(Invalid::new("name", "is required"));
            }
            Ok(WeightedCluster {
                name,
                weight,
                mutations,
                filters,
                host_rewrite,
                subset,
            })
        })();
        clusters.push(compiled.within_item("clusters", index)?);
    }
    let number = match message.random_value_specifier.take() {
        Some(RandomValueSpecifier::HeaderName(name)) => Some(header_name("header_name", &name)?),
        Some(RandomValueSpecifier::UseHashPolicy(used)) if used.value => {
            return Err(Invalid::unsupported("use_hash_policy"));
        }
        Some(RandomValueSpecifier::UseHashPolicy(_)) | None => None,
    };
    refuse_rest(&message)?;
    let total: u64 = clusters.iter().map(|cluster| cluster.weight).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return Err(Invalid::new(
            "clusters",
            "the sum of weights must be 1 to 4294967295",
        ));
    }
    if stated.is_some_and(|stated| stated != total) {
        return Err(Invalid::new(
            "total_weight",
            format!("must be the sum of weights, {total}"),
        ));
    }
    Ok(Target::Weighted {
        clusters,
        total,
        number,
    })
}

fn mirror(mut message: pb::route_action::RequestMirrorPolicy) -> Result<Mirror, Invalid> {
    // No spans are exported for copies either way.
    message.trace_sampled = None;
    let cluster = std::mem::take(&mut message.cluster);
    let fraction = message
        .runtime_fraction
        .take()
        .map_or(Ok(Fraction::ALL), Fraction::compile_runtime)
        .within("runtime_fraction")?;
    let shadow_suffix = !std::mem::take(&mut message.disable_shadow_host_suffix_append);
    refuse_rest(&message)?;
    if cluster.is_empty() {
        return Err(Invalid::new("cluster", "is required"));
    }
    Ok(Mirror {
        cluster,
        fraction,
        shadow_suffix,
    })
}
