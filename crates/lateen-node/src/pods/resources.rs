//! Quantities of CPU and memory: `resourceFieldRef`, the quality-of-service class, what the
//! machine has.

use k8s_openapi::api::core::v1::{Container, Pod};

/// The quality-of-service class that Kubernetes derives from requests and limits.
pub(crate) fn class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else {
        return "BestEffort";
    };
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let request = quantity(container, "requests", name);
            let limit = quantity(container, "limits", name);
            any |= request.is_some_and(|n| n > 0.0) || limit.is_some_and(|n| n > 0.0);
            // A missing request is the limit's.
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The value of `limits.cpu` and its like, in units of `divisor`, rounded up; without a limit,
/// what the machine has.
pub(crate) fn field(container: &Container, path: &str, divisor: Option<&str>) -> Option<String> {
    let (kind, name) = path.split_once('.')?;
    let machine = match name {
        "cpu" => cpus() as f64,
        "memory" => memory() as f64,
        "ephemeral-storage" => 0.0,
        _ => return None,
    };
    let value = match (kind, quantity(container, kind, name)) {
        ("limits" | "requests", Some(value)) => value,
        ("limits", None) => machine,
        ("requests", None) => quantity(container, "limits", name).unwrap_or(0.0),
        _ => return None,
    };
    let divisor = divisor
        .and_then(parse)
        .filter(|divisor| *divisor > 0.0)
        .unwrap_or(1.0);
    Some(format!("{:.0}", (value / divisor).ceil()))
}

/// Processors that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Size of a page of memory, in bytes.
pub(crate) fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// Memory of the machine, in bytes; 0 when it cannot be told.
pub(crate) fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn quantity(container: &Container, kind: &str, name: &str) -> Option<f64> {
    let resources = container.resources.as_ref()?;
    let map = match kind {
        "limits" => resources.limits.as_ref()?,
        "requests" => resources.requests.as_ref()?,
        _ => return None,
    };
    parse(&map.get(name)?.0)
}

/// A Kubernetes quantity: a number with a binary (`Ki`) or decimal (`m`, `k`) suffix or exponent.
pub(crate) fn parse(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1.0));
    number
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())
        .map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "spec": {"containers": [{"name": "a", "resources": resources}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        for (resources, expected) in [
            (serde_json::json!({}), "BestEffort"),
            (
                serde_json::json!({"requests": {"cpu": "100m"}}),
                "Burstable",
            ),
            (
                serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}),
                "Guaranteed",
            ),
            (
                serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(class(&pod(resources.clone())), expected, "{resources}");
        }
    }

    #[test]
    fn quantities_and_divisors() {
        let pod = pod(serde_json::json!({"limits": {"cpu": "1500m", "memory": "64Mi"}}));
        let container = &pod.spec.unwrap().containers[0];
        for (path, divisor, expected) in [
            ("limits.cpu", None, Some("2")),
            ("limits.cpu", Some("1m"), Some("1500")),
            ("limits.memory", Some("1Mi"), Some("64")),
            ("limits.memory", None, Some("67108864")),
            ("requests.cpu", Some("1m"), Some("1500")),
            ("limits.gpu", None, None),
        ] {
            assert_eq!(
                field(container, path, divisor).as_deref(),
                expected,
                "{path}"
            );
        }
    }
}
