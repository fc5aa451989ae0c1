//! argosy
fn main() {}
