//! Options of `cloud-config`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DiskArg;
use crate::cloud_config::live::LiveArgs;

/// The machine's own cloud-config.
#[derive(Debug, Subcommand)]
pub enum CloudConfigCommand {
    /// Apply it; files that are as it says are not written.
    Apply(CloudConfigApplyArgs),
    /// Apply what the agent asks for to the system that runs, and go back from what is not kept. A unit of the host starts it.
    Live(LiveArgs),
    /// Say what of a document is understood.
    Check {
        /// The document, or a folder with all documents of a machine.
        file: PathBuf,
    },
}

/// Options of `cloud-config apply`.
#[derive(Debug, Args)]
pub struct CloudConfigApplyArgs {
    /// Which of its steps.
    #[arg(long, value_enum, default_value = "early")]
    pub stage: When,
    /// Folder on the state partition that tells what was applied without a reboot and kept.
    #[arg(long, env = "EVENKEEL_STATE_DIR", default_value = "/var/lib/evenkeel")]
    pub state_dir: PathBuf,
    /// The disk.
    #[command(flatten)]
    pub disk: DiskArg,
}

/// When a machine applies its cloud-config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Before the system's own units: the stages rootfs, initramfs and fs.
    Early,
    /// Once the basic system is up: the stages after-install, after-upgrade and boot.
    Boot,
    /// Once the network is up: the stage network.
    Network,
}
