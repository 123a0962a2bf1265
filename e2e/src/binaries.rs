//! Evenkeel's own programs, linked statically: what runs in containers without anything else, and in the images.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::progress;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-C target-feature=+crt-static";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// The agent, the guard and the command line.
    Agent,
    /// The operator.
    Operator,
    /// Does nothing until it is told to end: the sandbox of every pod, and the demo's workload.
    Pause,
}

impl Binary {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "evenkeel-agent",
            Self::Operator => "evenkeel-operator",
            Self::Pause => "evenkeel-pause",
        }
    }
}

/// Where they are.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// A program's path.
    pub fn path(&self, binary: Binary) -> PathBuf {
        self.0.join(binary.name())
    }
}

/// Builds them; what is up to date is left alone.
pub async fn build() -> Result<Binaries> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("find the checkout")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked", "--target", TARGET])
        // With these packages at once, as the Makefile does it: another choice would have other features, and would
        // compile everything a second time.
        .args(["-p", "evenkeel-operator", "-p", "evenkeel-node-agent", "-p", "evenkeel-e2e"])
        .env("RUSTFLAGS", FLAGS)
        .current_dir(root)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = progress::long("build operator and agent, linked statically", command.output()).await;
    let output = output.context("run cargo")?;
    if !output.status.success() {
        bail!("cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(Binaries(target.join(TARGET).join("release")))
}
