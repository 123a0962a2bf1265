//! What kubectl shows.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{DIGEST, api, object, plans::order};

#[tokio::test]
async fn kubectl_shows_what_a_person_asks_for() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client().await?;
    let images = api(&client, "ManagedOSImage");
    let spec = json!({ "osImage": "os:1", "nodeSelector": { "matchLabels": { "none": "none" } } });
    images.create(&PostParams::default(), &object("ManagedOSImage", "shown", &spec)).await?;
    let status = json!({
        "image": format!("registry.example/os@{DIGEST}"),
        "version": "4.5.6",
        "summary": "7/10 updated, 1 rebooting",
        "nodes": { "total": 10, "updated": 7, "updating": 1, "failed": 0 },
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "RollingOut", "message": "not done",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let params = PatchParams::default();
    images.patch_status("shown", &params, &Patch::Merge(json!({ "status": status }))).await?;
    let table = cluster.kubectl(&["get", "mosi", "shown"]).await?;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAME", "VERSION", "NODES", "UPDATED", "READY", "STATUS", "AGE"]
    );
    assert!(
        lines[1]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .starts_with("shown 4.5.6 10 7 False 7/10 updated, 1 rebooting"),
        "{table}"
    );
    assert!(cluster.kubectl(&["get", "mosi", "shown", "-o", "wide"]).await?.contains(DIGEST));

    let plans = api(&client, "NodePlan");
    plans.create(&PostParams::default(), &object("NodePlan", "shown", &order("Booted"))).await?;
    let status = json!({
        "phase": "RolledBack",
        "booted": { "slot": "a", "digest": DIGEST, "bootId": "x" },
        "rolledBack": { "cause": "HostCheck", "message": "no network", "at": "2026-01-01T00:00:00Z" },
    });
    plans.patch_status("shown", &params, &Patch::Merge(json!({ "status": status }))).await?;
    let table = cluster.kubectl(&["get", "nplan", "shown", "--no-headers"]).await?;
    assert!(
        table
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .starts_with("shown Booted RolledBack a HostCheck"),
        "{table}"
    );
    let all = cluster.kubectl(&["get", "evenkeel"]).await?;
    assert!(
        all.contains("managedosimage.evenkeel.dev/shown") && all.contains("nodeplan.evenkeel.dev/shown"),
        "{all}"
    );
    let explained = cluster.kubectl(&["explain", "mosi.spec.rollout.maxUnavailable"]).await?;
    assert!(explained.contains("may be unavailable at once"), "{explained}");
    Ok(())
}
