//! Options of every command that takes an image from a registry.

use std::path::PathBuf;

use clap::Args;
use evenkeel_crds::managed_os_image::Mirror;
use evenkeel_node_agent_core::layout::parse_size;

/// Fewer bytes in a second than any image can be waited for; the API has the same limit.
const RATE_MIN: i64 = 16 << 10;

/// How an image is pulled, and who must have signed it.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// How it is pulled.
    #[command(flatten)]
    pub pull: PullArgs,
    /// Who must have signed it.
    #[command(flatten)]
    pub trust: TrustArgs,
}

/// How images are pulled.
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// Speak HTTP without TLS to the registry.
    #[arg(long)]
    pub plain_http: bool,
    /// Docker configuration (`config.json`) with credentials for registries.
    #[arg(long, env = "EVENKEEL_DOCKER_CONFIG")]
    pub docker_config: Option<PathBuf>,
    /// File with CA certificates (PEM) that registries may have, beside those of the machine.
    #[arg(long, env = "EVENKEEL_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Another place that has a registry's images, such as `docker.io=https://mirror.example:5000`; `*` stands for all
    /// registries. May be given several times. It is believed what tags mean there.
    #[arg(long = "mirror", value_name = "REGISTRY=URL", value_parser = parse_mirror)]
    pub mirrors: Vec<Mirror>,
    /// Folder with `hosts.toml` files as containerd has them, such as /etc/containerd/certs.d: more mirrors, and
    /// certificates for single registries, also in Docker's form.
    #[arg(long, env = "EVENKEEL_HOSTS_DIR")]
    pub hosts_dir: Option<PathBuf>,
    /// Proxy to registries and mirrors, such as `http://proxy.example:3128`; default: what the environment says.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// Bytes that are taken from registries in a second, such as `10MiB`; default: as many as come.
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    pub max_bytes_per_second: Option<i64>,
    /// Let everything else use the disk first.
    #[arg(long)]
    pub background: bool,
}

fn parse_mirror(text: &str) -> Result<Mirror, String> {
    let (registry, url) = text.split_once('=').ok_or("write REGISTRY=URL")?;
    Ok(Mirror { registry: registry.to_owned(), url: url.to_owned(), resolve: true })
}

fn parse_rate(text: &str) -> Result<i64, String> {
    let rate = parse_size(text).map_err(|error| error.to_string())?;
    let rate = i64::try_from(rate).ok().filter(|rate| *rate >= RATE_MIN);
    rate.ok_or_else(|| format!("at least {RATE_MIN} bytes"))
}

/// Who must have signed an image.
#[derive(Clone, Debug, Args)]
pub struct TrustArgs {
    /// Public key in PEM, a file; may be given more than once. The image must be signed with one of them, as
    /// `cosign sign --key` does. Default: no signature is asked for.
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
}
