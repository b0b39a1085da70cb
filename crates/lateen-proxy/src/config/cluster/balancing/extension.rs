//! Policy extensions. Each says the same as the older fields, so it becomes those.

use lateen_route::balance::Policy;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::common_lb_config::ConsistentHashingLbConfig;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::{
    LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, SlowStartConfig, ring_hash_lb_config,
};
use lateen_xds::pb::envoy::extensions::load_balancing_policies as policies;
use lateen_xds::pb::google::protobuf::Any;
use policies::common::v3::locality_lb_config::LocalityConfigSpecifier;
use policies::common::v3::{self as common, LocalityLbConfig};

use super::ClusterSpec;
use crate::config::decode;

impl ClusterSpec {
    /// The first policy that is known counts.
    pub(super) fn policy_extension(
        &mut self,
        policy: LoadBalancingPolicy,
        original: bool,
    ) -> Result<(), Invalid> {
        for (index, policy) in policy.policies.into_iter().enumerate() {
            let extension = policy.typed_extension_config.unwrap_or_default();
            let Some(any) = extension.typed_config else {
                return Err(Invalid::new("typed_extension_config", "is required"))
                    .within_item("policies", index);
            };
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let Some(name) = name.strip_prefix("envoy.extensions.load_balancing_policies.") else {
                continue;
            };
            if original != (name == "cluster_provided.v3.ClusterProvided") {
                return Err(Invalid::new(
                    "policies",
                    "must be cluster_provided for ORIGINAL_DST, and for no other type",
                ));
            }
            let path = "typed_extension_config.typed_config";
            let found = match name {
                "cluster_provided.v3.ClusterProvided" => Ok(true),
                _ => self.known(name, &any),
            };
            if found.within(path).within_item("policies", index)? {
                return Ok(());
            }
        }
        Err(Invalid::new(
            "policies",
            "has no policy that is supported by this proxy",
        ))
    }

    /// Takes a policy over; false when it is not known.
    fn known(&mut self, name: &str, any: &Any) -> Result<bool, Invalid> {
        match name {
            "round_robin.v3.RoundRobin" => {
                let mut config = decode::<policies::round_robin::v3::RoundRobin>(any)?;
                self.slow_start(config.slow_start_config.take().map(older))
                    .within("slow_start_config")?;
                self.locality(config.locality_lb_config.take())?;
                self.settings.policy = Policy::RoundRobin;
                refuse_rest(&config)?;
            }
            "least_request.v3.LeastRequest" => {
                let mut config = decode::<policies::least_request::v3::LeastRequest>(any)?;
                self.locality(config.locality_lb_config.take())?;
                self.least_request(LeastRequestLbConfig {
                    choice_count: config.choice_count.take(),
                    active_request_bias: config.active_request_bias.take(),
                    slow_start_config: config.slow_start_config.take().map(older),
                })?;
                refuse_rest(&config)?;
            }
            "random.v3.Random" => {
                let mut config = decode::<policies::random::v3::Random>(any)?;
                self.locality(config.locality_lb_config.take())?;
                self.settings.policy = Policy::Random;
                refuse_rest(&config)?;
            }
            "ring_hash.v3.RingHash" => self.ring_hash_extension(decode(any)?)?,
            "maglev.v3.Maglev" => {
                let mut config = decode::<policies::maglev::v3::Maglev>(any)?;
                self.hashing(config.consistent_hashing_lb_config.take())?;
                self.locality_weighted |= config.locality_weighted_lb_config.take().is_some();
                self.maglev(MaglevLbConfig {
                    table_size: config.table_size.take(),
                })?;
                refuse_rest(&config)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn ring_hash_extension(
        &mut self,
        mut config: policies::ring_hash::v3::RingHash,
    ) -> Result<(), Invalid> {
        use policies::ring_hash::v3::ring_hash::HashFunction;
        let function = match HashFunction::try_from(std::mem::take(&mut config.hash_function)) {
            Ok(HashFunction::MurmurHash2) => ring_hash_lb_config::HashFunction::MurmurHash2,
            Ok(_) => ring_hash_lb_config::HashFunction::XxHash,
            Err(_) => return Err(Invalid::new("hash_function", "is not a known function")),
        };
        let older = common::ConsistentHashingLbConfig {
            use_hostname_for_hashing: std::mem::take(&mut config.use_hostname_for_hashing),
            hash_balance_factor: config.hash_balance_factor.take(),
            ..Default::default()
        };
        self.hashing(Some(
            config.consistent_hashing_lb_config.take().unwrap_or(older),
        ))?;
        self.locality_weighted |= config.locality_weighted_lb_config.take().is_some();
        self.ring_hash(RingHashLbConfig {
            minimum_ring_size: config.minimum_ring_size.take(),
            hash_function: function.into(),
            maximum_ring_size: config.maximum_ring_size.take(),
        })?;
        refuse_rest(&config)
    }

    fn locality(&mut self, config: Option<LocalityLbConfig>) -> Result<(), Invalid> {
        match config.and_then(|config| config.locality_config_specifier) {
            None => Ok(()),
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
                self.locality_weighted = true;
                Ok(())
            }
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => Err(Invalid::unsupported(
                "locality_lb_config.zone_aware_lb_config",
            )),
        }
    }

    fn hashing(
        &mut self,
        config: Option<common::ConsistentHashingLbConfig>,
    ) -> Result<(), Invalid> {
        let Some(mut config) = config else {
            return Ok(());
        };
        let older = ConsistentHashingLbConfig {
            use_hostname_for_hashing: std::mem::take(&mut config.use_hostname_for_hashing),
            hash_balance_factor: config.hash_balance_factor.take(),
        };
        self.consistent_hashing(older)
            .and_then(|()| refuse_rest(&config))
            .within("consistent_hashing_lb_config")
    }
}

fn older(config: common::SlowStartConfig) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: config.slow_start_window,
        aggression: config.aggression,
        min_weight_percent: config.min_weight_percent,
    }
}
