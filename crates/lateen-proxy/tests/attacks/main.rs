//! Clients and endpoints that attack: framing that could be read in two ways, and resources that cost them nothing.
//!
//! | Row | What | Where |
//! |---|---|---|
//! | H1 | a length beside chunks, codings in every spelling | `framing`; with `allowChunkedLength` `proxy/http1/mod.rs` |
//! | H2 | lengths that differ, are listed or no numbers | `framing` |
//! | H3 | sizes and extensions of chunks | `chunks`; cut anywhere in the codec's own tests |
//! | H4 | bytes behind an upgrade | `upgrades` |
//! | H5 | bytes behind CONNECT | `upgrades` for HTTP/2; `proxy/connect.rs` for HTTP/1.1 |
//! | H6 | HTTP/2 bodies that are not as long as they say | `translation` |
//! | H7 | endpoints that say more than a response | `endpoints`; those that break the rules in `proxy/http1/endpoints.rs` |
//! | H8 | HTTP/2 fields that would be more in HTTP/1.1 | `translation` |
//! | H9 | exchanges that break off | `endpoints`; how they are logged in `proxy/http1/endpoints.rs` |
//! | R1 | streams that are opened and reset | `floods` |
//! | R2 | streams that the proxy has to reset | `floods` |
//! | R3 | heads that never end | `floods` |
//! | R4 | references that become fields, behind closed windows | `stalls`; fields that are joined in `heads` |
//! | R5 | frames that ask for nothing | `floods` |
//! | R6 | bodies of single bytes | `floods`; what they cost in chunks in `body_memory.rs` |
//! | R7 | clients that take nothing | `stalls` |
//! | R8 | heads that are large by what is dropped | `heads` |
//! | R9 | frames out of order | `translation`; the suite h2spec in `conformance/envoy` |
//! | R10 | clients that send a byte at a time | `slow`; the answers to them in `proxy/limits.rs`, `proxy/tls.rs` |
//! | R11 | more connections than there are files | `connections` |
//! | R12 | bodies that are kept | `bodies`; those that are looked at in `body_memory.rs`, `proxy/body_to_headers` |

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the other tests of the proxy use the rest"
)]
#[path = "../proxy/support.rs"]
mod support;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the other tests of the proxy use the rest"
)]
#[path = "../proxy/tls_support.rs"]
mod tls_support;

#[allow(unreachable_pub, reason = "the other tests of the proxy share it")]
#[path = "../proxy/http1/script.rs"]
mod script;

#[allow(
    unreachable_pub,
    dead_code,
    reason = "the other tests of the proxy share it"
)]
#[path = "../proxy/discovery.rs"]
mod discovery;

mod bodies;
mod chunks;
mod connections;
mod endpoint;
mod endpoints;
mod floods;
mod frames;
mod framing;
mod heads;
mod slow;
mod stage;
mod stalls;
mod translation;
mod upgrades;

use lateen_sys::allocation::CountingAllocator;

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();
