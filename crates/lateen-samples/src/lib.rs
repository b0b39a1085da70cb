//! The demo workloads, each a small server that behaves as its original does.
