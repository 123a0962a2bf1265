//! A Node object of the usual size: labels of a cloud, what a kubelet reports, and the images that it has.

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// Images that a node reports; a kubelet reports up to 50.
const IMAGES: usize = 12;
const ZONES: usize = 3;

/// A Node that is Ready.
pub fn describe(name: &str, number: usize, boot_id: &str) -> Result<Node> {
    let zone = format!("zone-{}", number % ZONES);
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "m.large",
                "topology.kubernetes.io/region": "region-1",
                "topology.kubernetes.io/zone": zone,
            },
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": format!("10.{}.{}.1", number / 250, number % 250) },
                { "type": "Hostname", "address": name },
            ],
            "capacity": { "cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi" },
            "allocatable": { "cpu": "3900m", "memory": "15Gi", "pods": "110", "ephemeral-storage": "90Gi" },
            "conditions": conditions(),
            "images": images(),
            "nodeInfo": {
                "bootID": boot_id, "machineID": name, "systemUUID": name, "architecture": "amd64",
                "kernelVersion": "6.1.0", "osImage": "model", "operatingSystem": "linux",
                "containerRuntimeVersion": "model", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
            },
        },
    }))?)
}

fn conditions() -> Value {
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "KubeletSaysSo", "message": "as a kubelet says it",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    json!([
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False"),
        condition("Ready", "True"),
    ])
}

fn images() -> Value {
    let image = |number: usize| {
        let repository = format!("registry.example/team-{number}/service-{number}");
        let digest = format!("{repository}@sha256:{number:064x}");
        json!({ "names": [digest, format!("{repository}:v1.2.{number}")], "sizeBytes": 100_000_000 + number })
    };
    (0..IMAGES).map(image).collect()
}
