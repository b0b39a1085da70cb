//! Kubernetes, Istio and Lateen kinds as Rust types: decoding, defaulting, validation and CRD generation. No I/O.
