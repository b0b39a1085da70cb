//! Checks of the Gateway API's kinds: what the validation rules of the upstream schemas refuse, and what a proxy would.

mod filter;
mod gateway;
mod route;

pub use filter::is_header_text;
pub use gateway::{gateway, gateway_class, reference_grant};
pub use route::{grpc_route, http_route, tcp_route, tls_route};
