//! Compiles `proto/`, through protox, so that no `protoc` has to be on the machine; and tells the linker what lies together.

use std::env;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/csi.proto", "proto/pluginregistration.proto"], ["proto"])?;
    // Server code too: tests write servers against it that the scripted driver's byte-level service is held against.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    order_code();
    Ok(())
}

/// Puts the code that an idle gateway runs side by side, which is a quarter of its resident memory (`scripts/order`).
///
/// Tried with the linker that Rust brings along on this one platform; whoever chooses another one gets the usual order.
fn order_code() {
    const ORDER: &str = ".cargo/order.ld";
    println!("cargo::rerun-if-changed={ORDER}");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_known = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_OS", "linux");
    let is_chosen = env::var_os("RUSTC_LINKER").is_some()
        || env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link-arg=-fuse-ld"));
    if is("PROFILE", "release") && is_known && !is_chosen && Path::new(ORDER).exists() {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/{ORDER}");
    }
}
