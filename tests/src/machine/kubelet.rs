//! What a kubelet reports of its node, and the life of its pods.

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::MachineOptions;

/// Makes the Node of a machine.
pub async fn register(client: &Client, options: &MachineOptions) -> Result<()> {
    let mut labels: std::collections::BTreeMap<&str, &str> =
        options.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    labels.insert("kubernetes.io/hostname", &options.name);
    let node = serde_json::from_value(json!({ "metadata": { "name": options.name, "labels": labels } }))?;
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
    Ok(())
}

/// Reports the node's readiness and, once it is up, its boot ID. An API server that is away is no reason to stop.
pub async fn report(client: &Client, node: &str, boot_id: Option<&str>, ready: bool) -> Result<()> {
    let now = Timestamp::now().to_string();
    let (status, reason) = if ready { ("True", "KubeletReady") } else { ("Unknown", "NodeStatusUnknown") };
    let mut patch = json!({
        "status": {
            "conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": "the model says so",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
        },
    });
    if let Some(boot_id) = boot_id {
        patch["status"]["nodeInfo"] = json!({
            "bootID": boot_id, "machineID": node, "systemUUID": node, "architecture": "amd64",
            "kernelVersion": "6.1.0", "osImage": "model", "operatingSystem": "linux",
            "containerRuntimeVersion": "model", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
        });
    }
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Starts pods of the node, and ends those that are to be deleted, as a kubelet does with their containers.
pub async fn tend_pods(client: &Client, node: &str) -> Result<()> {
    let all: Api<Pod> = Api::all(client.clone());
    let here = all.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
    for pod in here.items {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            pods.delete(&name, &now).await?;
        } else if phase == Some("Pending") {
            let conditions = json!([{ "type": "Ready", "status": "True" }]);
            let patch = json!({ "status": { "phase": "Running", "conditions": conditions } });
            pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
    }
    Ok(())
}
