//! Limits of the HTTP codecs. The libraries' own defaults are for friendly peers; a proxy talks to any.

/// Read buffer of an HTTP/1.1 connection in bytes, which also bounds a head.
pub(crate) const HTTP1_BUFFER: usize = 64 << 10;
/// Most header fields of a message.
pub(crate) const MOST_HEADERS: usize = 100;
/// Flow-control window of an HTTP/2 stream.
pub(crate) const STREAM_WINDOW: u32 = 64 << 10;
/// Flow-control window of an HTTP/2 connection.
pub(crate) const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes buffered for sending per HTTP/2 stream.
pub(crate) const SEND_BUFFER: usize = 64 << 10;
/// Header list of an HTTP/2 message in bytes.
pub(crate) const HEADER_LIST: u32 = 60 << 10;
/// Concurrent streams of a downstream connection.
pub(crate) const STREAMS: u32 = 100;
/// Streams that a peer resets before they are accepted, and that we reset for its errors, before it is cut off.
pub(crate) const RESETS: (usize, usize) = (20, 100);
