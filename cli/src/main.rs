//! One binary, `iota`.
fn main() {}
