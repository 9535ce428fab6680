//! Compiles `proto/`, through protox, so that no `protoc` has to be on the machine; and tells the linker what lies together.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/csi.proto", "proto/pluginregistration.proto"], ["proto"])?;
    // Server code too: tests write servers against it that the scripted driver's byte-level service is held against.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    // Not beside them: `proto/` is what drivers and kubelets say, and is held whole against their own descriptions.
    println!("cargo::rerun-if-changed=src/fleet/etcd.proto");
    let etcd = protox::compile(["src/fleet/etcd.proto"], ["src/fleet"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(etcd)?;
    order_code();
    shorten_relocations();
    Ok(())
}

/// Puts the code that an idle gateway runs side by side, which is a quarter of its resident memory (`scripts/order`).
///
/// Tried with the linker that Rust brings along on this one platform; whoever chooses another one gets the usual order.
fn order_code() {
    const ORDER: &str = ".cargo/order.ld";
    println!("cargo::rerun-if-changed={ORDER}");
    let is_known = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_OS", "linux");
    if is("PROFILE", "release") && is_known && !is_linker_chosen() && Path::new(ORDER).exists() {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/{ORDER}");
    }
}

/// Keeps the list of addresses that the loader corrects at the start in the short form: the long one, 0.7 MiB of it, is read
/// as a whole and stays in memory. The C library understands the short one from 2.36 on; the program asks for that then.
fn shorten_relocations() {
    let is_known = is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_OS", "linux") && is_native();
    if !is("PROFILE", "release") || !is_known || is_linker_chosen() {
        return;
    }
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = said.trim().strip_prefix("glibc 2.").and_then(|minor| minor.split('.').next()?.parse::<u32>().ok());
    if version.is_some_and(|minor| minor >= 36) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether this is built for the machine that builds it, whose compiler can be asked.
fn is_native() -> bool {
    env::var("HOST").is_ok_and(|host| is("TARGET", &host))
}

fn is(name: &str, value: &str) -> bool {
    env::var(name).is_ok_and(|found| found == value)
}

fn is_linker_chosen() -> bool {
    env::var_os("RUSTC_LINKER").is_some()
        || env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link-arg=-fuse-ld"))
}
