//! What can still be seen of a demo that failed, so that whoever has nothing but its output can find out why.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use evenkeel_crds::NodePlan;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::cluster::Cluster;
use crate::{machine::Machine, process::output, wait};

/// All of the cluster that has to do with a rollout, whole.
const KINDS: &str = "nodes,nodeplans,managedosimages,pods,jobs,events,leases";
/// A processor that moves is elsewhere after this.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);
/// Lines of each console in the short form.
const LAST_LINES: usize = 4;

/// Everything, in many lines.
pub async fn whole(cluster: &Cluster) -> String {
    let mut kubectl = cluster.kubectl();
    kubectl.args(["get", KINDS, "--all-namespaces", "--output", "yaml"]);
    let said = output(kubectl).await;
    said.map_or_else(|error| format!("{error:#}"), |said| String::from_utf8_lossy(&said).into_owned())
}

/// What matters most, in few lines: how each node and its plan stand, and what its machine does.
pub async fn short(cluster: &Cluster, machines: &[Machine]) -> String {
    let mut text = nodes(cluster).await.unwrap_or_else(|error| format!("the API server: {error:#}\n"));
    let before: Vec<String> = machines.iter().map(Machine::processors).collect();
    tokio::time::sleep(BETWEEN_LOOKS).await;
    for (machine, before) in machines.iter().zip(before) {
        let (name, after) = (machine.name(), machine.processors());
        let _ = writeln!(text, "{name}'s processors: {before}; {} s later {after}", BETWEEN_LOOKS.as_secs());
        let console = machine.console_tail();
        let lines: Vec<&str> = console.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            let _ = writeln!(text, "{name}'s console: {}", line.trim_end());
        }
    }
    text
}

async fn nodes(cluster: &Cluster) -> Result<String> {
    let client = cluster.control_plane.client();
    let all = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&all).await.context("list the nodes")?;
    let plans = Api::<NodePlan>::all(client).list(&all).await.context("list the plans")?;
    let mut text = String::new();
    for node in &nodes {
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        let conditions =
            node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let said = ready.and_then(|condition| condition.message).unwrap_or_default();
        let (name, is_ready) = (node.name_any(), wait::ready(node));
        let _ = writeln!(text, "{name}: Ready {is_ready} ({said}), cordoned {cordoned}");
    }
    for plan in &plans {
        let (spec, status) = (&plan.spec, plan.status.clone().unwrap_or_default());
        let _ = writeln!(
            text,
            "plan of {}: target {:?}, turn {:?}; {:?}, boot {:?}, back {:?}, error {:?}",
            plan.name_any(),
            spec.target,
            spec.disruption,
            status.phase,
            status.booted.map(|booted| (booted.slot, booted.boot_id)),
            status.rolled_back,
            status.error,
        );
    }
    Ok(text)
}
