//! Real programs for tests: where they are, and what happens where they are not.
//!
//! `CSI_GATEWAY_TEST_BIN` is a folder with real drivers and sidecars, `CSI_GATEWAY_TEST_SANITY` the conformance test's
//! binary. Without them a test prints `skipped: …` and passes, so that `cargo test` needs nothing;
//! `CSI_GATEWAY_TEST_STRICT=1` turns skipping into failure, so that CI cannot pass by missing a part.

#![allow(dead_code, unreachable_pub, reason = "each test binary that takes this in uses its own part of it")]

use std::io::Write;
use std::path::{Path, PathBuf};

/// A program that a test would like to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The hostpath driver: a controller and node that needs no cluster.
    HostpathDriver,
    /// The sidecar whose place we take.
    LivenessProbe,
    /// The sidecar that registers a driver with the kubelet.
    NodeDriverRegistrar,
    /// The conformance test of CSI.
    Sanity,
}

impl Part {
    /// The part's path; `None` where it is not there, which has been said. Call it first in a test and return on `None`.
    ///
    /// # Panics
    /// If the part is missing and `CSI_GATEWAY_TEST_STRICT` is set.
    pub fn find(self) -> Option<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match self.look_up(variable("CSI_GATEWAY_TEST_BIN"), variable("CSI_GATEWAY_TEST_SANITY")) {
            Ok(path) => Some(path),
            Err(why) => {
                assert!(variable("CSI_GATEWAY_TEST_STRICT").is_none(), "a real part is missing: {why}");
                // Not by a macro: what those print is kept back where a test passes.
                let _ = writeln!(std::io::stderr(), "skipped: {why}");
                None
            }
        }
    }

    fn look_up(
        self,
        folder: Option<std::ffi::OsString>,
        sanity: Option<std::ffi::OsString>,
    ) -> Result<PathBuf, String> {
        let path = match self.file_name() {
            Some(name) => {
                Path::new(&folder.ok_or("`CSI_GATEWAY_TEST_BIN` names no folder of real programs")?).join(name)
            }
            None => PathBuf::from(sanity.ok_or("`CSI_GATEWAY_TEST_SANITY` names no csi-sanity")?),
        };
        if path.is_file() { Ok(path) } else { Err(format!("there is no `{}`", path.display())) }
    }

    /// Its name in the folder; `None` for what has a variable of its own.
    fn file_name(self) -> Option<&'static str> {
        match self {
            Self::HostpathDriver => Some("hostpathplugin"),
            Self::LivenessProbe => Some("livenessprobe"),
            Self::NodeDriverRegistrar => Some("csi-node-driver-registrar"),
            Self::Sanity => None,
        }
    }
}

#[test]
fn a_missing_part_says_why_it_is_missing() {
    assert!(Part::Sanity.look_up(None, None).is_err_and(|why| why.contains("CSI_GATEWAY_TEST_SANITY")));
    assert!(Part::HostpathDriver.look_up(None, None).is_err_and(|why| why.contains("CSI_GATEWAY_TEST_BIN")));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let found = Part::LivenessProbe.look_up(Some(folder.path().into()), None);
    assert!(found.is_err_and(|why| why.ends_with("livenessprobe`")));
    let path = folder.path().join("hostpathplugin");
    std::fs::write(&path, "").expect("a file in it");
    assert_eq!(Part::HostpathDriver.look_up(Some(folder.path().into()), None), Ok(path));
}
