//! Parse, load, build, run; print what went wrong and exit with its code.

fn main() {}
