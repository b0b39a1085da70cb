//! Group `networking.istio.io`.

pub mod destination_rule;
pub mod gateway;
pub mod http_route;
pub mod service_entry;
pub mod sidecar;
pub mod traffic_policy;
pub mod virtual_service;

pub use destination_rule::DestinationRuleSpec;
pub use gateway::GatewaySpec;
pub use service_entry::ServiceEntrySpec;
pub use sidecar::SidecarSpec;
pub use virtual_service::VirtualServiceSpec;

use crate::Object;

/// What happens to traffic once its destination host is known.
pub type DestinationRule = Object<DestinationRuleSpec>;
/// Ports and hosts that a gateway workload serves.
pub type Gateway = Object<GatewaySpec>;
/// A service that the registry does not know of.
pub type ServiceEntry = Object<ServiceEntrySpec>;
/// What a sidecar sees and accepts.
pub type Sidecar = Object<SidecarSpec>;
/// How requests to hosts are routed.
pub type VirtualService = Object<VirtualServiceSpec>;
/// A workload outside of Kubernetes that services select by its labels.
pub type WorkloadEntry = Object<service_entry::WorkloadEntryBody>;

/// Group of all kinds of this module.
const GROUP: &str = "networking.istio.io";
/// Served versions of all kinds of this module, the storage version first.
const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
