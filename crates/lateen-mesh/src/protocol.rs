//! Protocols of service ports.
