//! Options of the programs that units of the host start.

use std::path::PathBuf;

use clap::Args;

/// What such a program is told of the host.
#[derive(Clone, Debug, Args)]
pub struct HostArgs {
    /// Folder on the state partition for what the agent and this program say to each other.
    #[arg(long, env = "EVENKEEL_STATE_DIR", default_value = "/var/lib/evenkeel")]
    pub state_dir: PathBuf,
    /// Folder of programs that each say by their exit status whether this machine is healthy.
    #[arg(long, default_value = "/usr/lib/evenkeel/health.d")]
    pub health_dir: PathBuf,
    /// Where the kernel tells of the running system.
    #[arg(long, env = "EVENKEEL_PROC", default_value = "/proc")]
    pub proc: PathBuf,
}
