//! How registries are spoken to.

use std::{path::PathBuf, time::Duration};

use evenkeel_crds::managed_os_image::Pull;

use crate::Reputation;

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// What the API says: mirrors, certificates, proxy, plain HTTP.
    pub pull: Pull,
    /// Docker configuration (`config.json`) with credentials; a file that is not there has none. It is read anew
    /// whenever a registry asks who we are.
    pub docker_config: Option<PathBuf>,
    /// File with further certificates to trust, PEM. A file that is not there has none.
    pub ca_file: Option<PathBuf>,
    /// Folder with `hosts.toml` files as containerd has them, mostly `/etc/containerd/certs.d`. Its mirrors are asked
    /// after those of `pull`.
    pub hosts_dir: Option<PathBuf>,
    /// What is known of registries and mirrors. Whoever keeps a copy is not misled twice in the same way.
    pub reputation: Reputation,
    /// Limits of patience.
    pub limits: Limits,
}

/// Limits of patience.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until a connection must stand.
    pub connect: Duration,
    /// Longest silence in an answer. A slow registry is no error, one that stopped is.
    pub idle: Duration,
    /// First pause after a failure; it doubles with each further one.
    pub pause: Duration,
    /// The same for a registry that is there and says that it cannot serve now.
    pub pause_busy: Duration,
    /// Longest pause of our own choice.
    pub pause_max: Duration,
    /// Longest pause that a registry may ask for. Whoever asks us has a longer patience.
    pub retry_after_max: Duration,
    /// How long a mirror that failed is not asked again.
    pub mirror_rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            pause: Duration::from_millis(500),
            pause_busy: Duration::from_secs(2),
            pause_max: Duration::from_secs(16),
            retry_after_max: Duration::from_mins(2),
            mirror_rest: Duration::from_mins(1),
        }
    }
}
