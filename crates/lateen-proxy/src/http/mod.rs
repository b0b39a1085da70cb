//! HTTP: from the bytes of a connection to an upstream and back.
//!
//! [`connection`] has the codec, which is [`crate::http1`] or hyper for HTTP/2, and [`drive`] runs it; [`arrival`] begins a request,
//! [`exchange`] takes it from its head to its response, [`forward`] finds an upstream, [`retry`] makes attempts
//! ([`attempt`]) until one answers, [`shadow`] sends copies elsewhere, and [`finish`] ends it.

mod alarm;
mod arrival;
mod attempt;
pub(crate) mod body;
pub(crate) mod client_certificate;
pub(crate) mod codec;
pub(crate) mod connection;
pub(crate) mod decorator;
mod drive;
mod exchange;
pub(crate) mod filter;
pub(crate) mod finish;
mod forward;
mod forwarded;
mod found;
mod frames;
#[cfg(test)]
mod fuzz;
mod gate;
pub(crate) mod head;
pub(crate) mod held;
mod hop;
mod incoming;
mod io;
mod kept;
pub(crate) mod local;
pub(crate) mod local_reply;
pub(crate) mod manager;
mod normalise;
mod preface;
mod redirect;
pub(crate) mod reply;
pub(crate) mod request_body;
mod retry;
pub(crate) mod shadow;
mod stall;
mod throttle;
pub(crate) mod tunnel;
pub(crate) mod upgrade;

pub(crate) use connection::serve;
