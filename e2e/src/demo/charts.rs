//! The two charts, installed by helm as a user would.

use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

use super::cluster::{Cluster, TAG};
use crate::{machine::HOST, process::output, progress, tools::Tool};

const NAMESPACE: &str = "evenkeel-system";

/// Installs both, and waits until operator and agents run as pods on the machines.
pub async fn install(cluster: &Cluster) -> Result<()> {
    progress::step("helm install evenkeel-crds");
    output(helm(cluster, "evenkeel-crds")).await?;
    let mut evenkeel = helm(cluster, "evenkeel");
    let image =
        |part: &str| format!("{part}.image.repository={}/evenkeel/{part}", cluster.registry_in_machines());
    let tag = |part: &str| format!("{part}.image.tag={TAG}");
    let settings = [
        image("operator"),
        tag("operator"),
        image("agent"),
        tag("agent"),
        // These machines have no kube-proxy, so that the Service of the API server does not answer.
        format!("apiServer.host={HOST}"),
        format!("apiServer.port={}", cluster.control_plane.port()),
    ];
    evenkeel.arg("--values").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/values.yaml"));
    for setting in settings {
        evenkeel.args(["--set-string", &setting]);
    }
    evenkeel.args(["--wait", "--timeout", "5m"]);
    progress::long("helm install evenkeel, until operator and agents are ready", output(evenkeel)).await?;
    Ok(())
}

fn helm(cluster: &Cluster, chart: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts").join(chart);
    let mut command = Command::new(cluster.control_plane.tools().path(Tool::Helm));
    command.arg("--kubeconfig").arg(cluster.control_plane.kubeconfig());
    command.args(["upgrade", "--install", chart]).arg(path);
    command.args(["--namespace", NAMESPACE, "--create-namespace"]);
    command
}
