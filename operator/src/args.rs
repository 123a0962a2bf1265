//! The command line; each option is an environment variable as well.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

/// Rolls OS images over the nodes of a cluster, as its `ManagedOSImage` objects say.
///
/// Outside a cluster it uses the kubeconfig in KUBECONFIG. Exit codes: 0 stopped by a signal; 1 failed, or the lease was
/// lost; 2 wrong usage.
#[derive(Clone, Debug, Parser)]
#[command(name = "evenkeel-operator", version)]
pub struct Args {
    /// Namespace of the lease that lets one replica act.
    #[arg(long, env = "EVENKEEL_NAMESPACE", default_value = "evenkeel-system")]
    pub namespace: String,
    /// Name of this replica in the lease, and of its pod. One that is killed and started again under the same name goes
    /// on at once.
    /// Default: a random one.
    #[arg(long, env = "EVENKEEL_IDENTITY")]
    pub identity: Option<String>,
    /// The node that this replica runs on: its turn comes last.
    #[arg(long, env = "EVENKEEL_NODE_NAME")]
    pub node_name: Option<String>,
    /// Seconds without a renewal after which another replica takes over.
    #[arg(long, env = "EVENKEEL_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,
    /// Docker configuration (`config.json`) with credentials for registries.
    #[arg(long, env = "EVENKEEL_DOCKER_CONFIG")]
    pub docker_config: Option<PathBuf>,
    /// File with CA certificates (PEM) that registries may have, beside those of the machine.
    #[arg(long, env = "EVENKEEL_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Address that serves /metrics, /healthz and /readyz.
    #[arg(long, env = "EVENKEEL_METRICS_ADDR", default_value = "[::]:8080")]
    pub metrics_addr: SocketAddr,
    /// Write the lifecycle conditions of KEP-5683 on Nodes: they are drained, or down for an update.
    #[arg(long, env = "EVENKEEL_LIFECYCLE_CONDITIONS", value_parser = clap::builder::FalseyValueParser::new())]
    pub lifecycle_conditions: bool,
    /// What is logged, such as `info` or `evenkeel_operator=debug,kube=info`.
    #[arg(long, env = "EVENKEEL_LOG", default_value = "info,kube_runtime=warn")]
    pub log: String,
    /// Log one JSON object per line.
    #[arg(long, env = "EVENKEEL_LOG_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    pub log_json: bool,
}
