//! clusterctl
fn main() {}
