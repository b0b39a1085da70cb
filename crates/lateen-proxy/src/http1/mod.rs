//! HTTP/1.1 and 1.0 (RFC 9112): the codec of clients ([`server`]) and of endpoints ([`client`]).
//!
//! Written for a proxy: one task carries an exchange from the client's socket to the endpoint's and back. Bodies read
//! straight from the buffers of their connections and are passed on as slices of them, so that a message needs no task,
//! channel or lock of its own. Everything runs on the thread of its worker.
//!
//! Messages whose framing can be read in more than one way are refused, not repaired: that is where smuggling begins
//! (RFC 9112 section 11.2). What is sent is framed anew.

mod body_encoder;
mod chunked;
mod client;
mod date;
mod encode;
mod error;
mod framing;
mod io;
mod parse;
mod server;
mod target;
mod tunnel;

pub(crate) use client::{Client, ClientBody};
pub(crate) use encode::OutgoingHead;
pub(crate) use error::{Error, Malformed};
pub(crate) use parse::RequestHead;
pub(crate) use server::{Arrived, Ended, Refusal, Server, ServerBody, Settings};
pub(crate) use target::is_authority;
pub(crate) use tunnel::Tunnel;
