//! Options of `evenkeel-agent run`.

use std::path::PathBuf;

/// Follow this node's plan: the DaemonSet's command.
///
/// Who must have signed an image is in the plan (`verification` of the image object), and not among these options.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Name of this node, which is the name of its plan.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Disk with Evenkeel's layout; default: the one that this machine runs from.
    #[arg(long, env = "EVENKEEL_DISK")]
    pub disk: Option<PathBuf>,
    /// Folder on the state partition for the journal.
    #[arg(long, env = "EVENKEEL_STATE_DIR", default_value = "/var/lib/evenkeel")]
    pub state_dir: PathBuf,
    /// Docker configuration (`config.json`) with credentials for registries.
    #[arg(long, env = "EVENKEEL_DOCKER_CONFIG")]
    pub docker_config: Option<PathBuf>,
    /// File with CA certificates (PEM) that registries may have, beside those of the machine.
    #[arg(long, env = "EVENKEEL_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Folder with `hosts.toml` files as containerd has them, such as /etc/containerd/certs.d: more mirrors, and
    /// certificates for single registries, also in Docker's form.
    #[arg(long, env = "EVENKEEL_HOSTS_DIR")]
    pub hosts_dir: Option<PathBuf>,
    /// Where the kernel tells of the running system: `cmdline` and `sys/kernel/random/boot_id` are read below it.
    #[arg(long, env = "EVENKEEL_PROC", default_value = "/proc")]
    pub proc: PathBuf,
    /// Program that reboots the host, for hosts whose init is not systemd; default: tell systemd, as PID 1, to reboot.
    #[arg(long, env = "EVENKEEL_REBOOT_COMMAND")]
    pub reboot_command: Option<PathBuf>,
}
