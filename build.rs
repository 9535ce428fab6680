//! Compiles `proto/`, nothing else.

fn main() {}
