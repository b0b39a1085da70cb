//! Load balancing of a cluster, in the older fields (`lb_policy` and what belongs to it) or as a policy extension.

mod extension;
mod subsets;

use lateen_route::balance::{HashFunction, Policy, SlowStart};
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier,
};
use lateen_xds::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    SlowStartConfig, ring_hash_lb_config,
};

use super::ClusterSpec;
use crate::cluster::Discovery;
use crate::config::positive;

const LARGEST_RING: u64 = 8 << 20;
const LARGEST_TABLE: u64 = 5_000_011;

impl ClusterSpec {
    pub(super) fn balancing(&mut self, message: &mut pb::Cluster) -> Result<(), Invalid> {
        let original = matches!(self.discovery, Discovery::OriginalDestination(_));
        if let Some(policy) = message.load_balancing_policy.take() {
            // It wins over the older fields.
            message.lb_policy = 0;
            message.lb_config = None;
            if let Some(common) = message.common_lb_config.take() {
                self.common_balancing(common).within("common_lb_config")?;
                self.locality_weighted = false;
            }
            return self
                .policy_extension(policy, original)
                .within("load_balancing_policy");
        }
        let config = message.lb_config.take();
        let policy = LbPolicy::try_from(std::mem::take(&mut message.lb_policy));
        if original != matches!(policy, Ok(LbPolicy::ClusterProvided)) {
            return Err(Invalid::new(
                "lb_policy",
                "must be CLUSTER_PROVIDED for ORIGINAL_DST, and for no other type",
            ));
        }
        match (policy, config) {
            (Ok(LbPolicy::ClusterProvided), None) => {}
            (Ok(LbPolicy::RoundRobin), config) => {
                if let Some(LbConfig::RoundRobinLbConfig(mut config)) = self.own(config)? {
                    self.slow_start(config.slow_start_config.take())
                        .within("round_robin_lb_config.slow_start_config")?;
                    refuse_rest(&config).within("round_robin_lb_config")?;
                }
            }
            (Ok(LbPolicy::LeastRequest), config) => {
                let config = match self.own(config)? {
                    Some(LbConfig::LeastRequestLbConfig(config)) => config,
                    _ => LeastRequestLbConfig::default(),
                };
                self.least_request(config)
                    .within("least_request_lb_config")?;
            }
            (Ok(LbPolicy::Random), config) => {
                self.own(config)?;
                self.settings.policy = Policy::Random;
            }
            (Ok(LbPolicy::RingHash), config) => {
                let config = match self.own(config)? {
                    Some(LbConfig::RingHashLbConfig(config)) => config,
                    _ => RingHashLbConfig::default(),
                };
                self.ring_hash(config).within("ring_hash_lb_config")?;
            }
            (Ok(LbPolicy::Maglev), config) => {
                let config = match self.own(config)? {
                    Some(LbConfig::MaglevLbConfig(config)) => config,
                    _ => MaglevLbConfig::default(),
                };
                self.maglev(config).within("maglev_lb_config")?;
            }
            _ => return Err(Invalid::unsupported("lb_policy")),
        }
        if let Some(common) = message.common_lb_config.take() {
            self.common_balancing(common).within("common_lb_config")?;
        }
        if let Some(subsets) = message.lb_subset_config.take() {
            self.subsets = subsets::compile(subsets).within("lb_subset_config")?;
        }
        Ok(())
    }

    /// Settings of another policy have no effect in Envoy; here they are a mistake that is named.
    fn own(&self, config: Option<LbConfig>) -> Result<Option<LbConfig>, Invalid> {
        match config {
            Some(LbConfig::OriginalDstLbConfig(_)) => {
                Err(Invalid::unsupported("original_dst_lb_config"))
            }
            config => Ok(config),
        }
    }

    fn least_request(&mut self, mut config: LeastRequestLbConfig) -> Result<(), Invalid> {
        let choices = config.choice_count.take().map_or(2, |value| value.value);
        if choices < 2 {
            return Err(Invalid::new("choice_count", "must be at least 2"));
        }
        // The key of the bias names a runtime layer, which does not exist here.
        let bias = config.active_request_bias.take();
        let bias = bias.map_or(1.0, |bias| bias.default_value);
        if !(bias >= 0.0 && bias.is_finite()) {
            return Err(Invalid::new("active_request_bias", "must be zero or more"));
        }
        self.slow_start(config.slow_start_config.take())
            .within("slow_start_config")?;
        self.settings.policy = Policy::LeastRequest { choices, bias };
        refuse_rest(&config)
    }

    fn ring_hash(&mut self, mut config: RingHashLbConfig) -> Result<(), Invalid> {
        let size = config.minimum_ring_size.take();
        let minimum = size.map_or(1024, |value| value.value);
        let size = config.maximum_ring_size.take();
        let maximum = size.map_or(LARGEST_RING, |value| value.value);
        let function = match ring_hash_lb_config::HashFunction::try_from(std::mem::take(
            &mut config.hash_function,
        )) {
            Ok(ring_hash_lb_config::HashFunction::XxHash) => HashFunction::XxHash,
            Ok(ring_hash_lb_config::HashFunction::MurmurHash2) => HashFunction::Murmur2,
            Err(_) => return Err(Invalid::new("hash_function", "is not a known function")),
        };
        if minimum > maximum || maximum > LARGEST_RING {
            return Err(Invalid::new(
                "minimum_ring_size",
                format!(
                    "{minimum} must be at most the maximum, {maximum} (at most {LARGEST_RING})"
                ),
            ));
        }
        self.settings.policy = Policy::RingHash {
            minimum,
            maximum,
            function,
        };
        refuse_rest(&config)
    }

    fn maglev(&mut self, mut config: MaglevLbConfig) -> Result<(), Invalid> {
        let size = config.table_size.take().map_or(65_537, |value| value.value);
        if size > LARGEST_TABLE || !is_prime(size) {
            return Err(Invalid::new(
                "table_size",
                format!("must be a prime of at most {LARGEST_TABLE}"),
            ));
        }
        self.settings.policy = Policy::Maglev { size };
        refuse_rest(&config)
    }

    fn slow_start(&mut self, config: Option<SlowStartConfig>) -> Result<(), Invalid> {
        let Some(mut config) = config else {
            return Ok(());
        };
        let window = config.slow_start_window.take().map(positive).transpose();
        let window = window.within("slow_start_window")?;
        let aggression = config.aggression.take();
        let aggression = aggression.map_or(1.0, |value| value.default_value);
        let minimum = config.min_weight_percent.take();
        let minimum = minimum.map_or(10.0, |value| value.value);
        refuse_rest(&config)?;
        if !(aggression > 0.0 && aggression.is_finite()) {
            return Err(Invalid::new("aggression", "must be more than zero"));
        }
        if !(0.0..=100.0).contains(&minimum) {
            return Err(Invalid::new("min_weight_percent", "must be 0 to 100"));
        }
        self.settings.slow_start = window.map(|window| SlowStart {
            window,
            aggression,
            minimum: minimum / 100.0,
        });
        Ok(())
    }

    fn common_balancing(&mut self, mut common: CommonLbConfig) -> Result<(), Invalid> {
        // Updates are applied at once; merging them would only delay.
        common.update_merge_window = None;
        // Without active health checks, no endpoint waits for its first one.
        common.ignore_new_hosts_until_first_hc = false;
        if let Some(percent) = common.healthy_panic_threshold.take() {
            if !(0.0..=100.0).contains(&percent.value) {
                return Err(Invalid::new("healthy_panic_threshold", "must be 0 to 100"));
            }
            // Percentages are whole numbers in the computation of panic.
            self.settings.panic_threshold = percent.value as u32;
        }
        match common.locality_config_specifier.take() {
            None => {}
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
                self.locality_weighted = true;
            }
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
                return Err(Invalid::unsupported("zone_aware_lb_config"));
            }
        }
        self.close_on_change = std::mem::take(&mut common.close_connections_on_host_set_change);
        if let Some(hashing) = common.consistent_hashing_lb_config.take() {
            let named = self.dns.as_ref().is_some_and(|dns| !dns.logical);
            if hashing.use_hostname_for_hashing && !named {
                return Err(Invalid::new(
                    "consistent_hashing_lb_config.use_hostname_for_hashing",
                    "needs a cluster of type STRICT_DNS",
                ));
            }
            self.consistent_hashing(hashing)
                .within("consistent_hashing_lb_config")?;
        }
        refuse_rest(&common)
    }

    fn consistent_hashing(&mut self, mut config: ConsistentHashingLbConfig) -> Result<(), Invalid> {
        self.hash_host_names = std::mem::take(&mut config.use_hostname_for_hashing);
        let factor = config.hash_balance_factor.take().map(|value| value.value);
        if factor.is_some_and(|factor| factor < 100) {
            return Err(Invalid::new("hash_balance_factor", "must be at least 100"));
        }
        self.settings.hash_balance_factor = factor;
        refuse_rest(&config)
    }
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}
