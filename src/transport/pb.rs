//! The generated protocol code, and the only place that includes it.
//!
//! Generated from `proto/` and `src/fleet/etcd.proto` by `build.rs`. Only `csi`, `demo` and (etcd's part) `fleet` read it;
//! CSI's enums are read in `csi::convert` alone. The lint exceptions hold for code that nobody here wrote.

/// CSI 1.13, package `csi.v1`: all messages and enums of the calls that only read.
#[allow(
    missing_docs,        // the comments of the .proto file are all there is
    unreachable_pub,     // the generator knows no visibility
    clippy::all,         // style of the generator's output
    rustdoc::all,        // comments are protobuf's, not rustdoc's
    reason = "generated code"
)]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// kubelet's plugin registration, package `pluginregistration`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all, reason = "generated code, as above")]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// etcd, package `etcdserverpb`: a client's part of it.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all, reason = "generated code, as above")]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
