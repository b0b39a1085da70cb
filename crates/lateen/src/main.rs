//! An Istio-compatible service mesh in one binary.
fn main() {}
