//! `NodePlan`.

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{DIGEST, accepted, api, object};

pub fn order(target: &str) -> Value {
    json!({
        "planId": "p1",
        "image": format!("registry.example/os@{DIGEST}"),
        "target": target,
        "notAfter": "2030-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn plans() -> Result<()> {
    let mut reverted = order("Reverted");
    reverted["revert"] = json!({ "cause": "User", "message": "no more" });
    let disruption =
        json!({ "since": "2026-01-01T00:00:00Z", "foundCordoned": false, "bootIdBefore": "x", "attempt": 1 });
    let mut disrupted = order("Booted");
    disrupted["disruption"] = disruption;
    accepted("NodePlan", &[json!({}), order("Staged"), order("Committed"), reverted, disrupted]).await
}

#[tokio::test]
async fn an_order_keeps_its_image_and_moves_forward_only() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let plans = api(&client, "NodePlan");
    plans.create(&PostParams::default(), &object("NodePlan", "moves", &order("Staged"))).await?;
    let other = format!("registry.example/os@sha256:{}", "f".repeat(64));
    let change = |spec: Value| Patch::Merge(json!({ "spec": spec }));
    let params = PatchParams::default();
    let said =
        plans.patch("moves", &params, &change(json!({ "image": other }))).await.unwrap_err().to_string();
    assert!(said.contains("an order's image does not change: a new image needs a new planId"), "{said}");
    plans.patch("moves", &params, &change(json!({ "target": "Booted" }))).await?;
    let back = change(json!({ "target": "Staged" }));
    let said = plans.patch("moves", &params, &back).await.unwrap_err().to_string();
    assert!(said.contains("an order's target moves forward only"), "{said}");
    let reverted = json!({ "target": "Reverted", "revert": { "cause": "User" } });
    plans.patch("moves", &params, &change(reverted)).await?;
    let again = change(json!({ "target": "Committed" }));
    let said = plans.patch("moves", &params, &again).await.unwrap_err().to_string();
    assert!(said.contains("an order's target moves forward only"), "{said}");
    plans
        .patch("moves", &params, &change(json!({ "planId": "p2", "image": other, "target": "Staged" })))
        .await?;
    let nothing = json!({ "planId": null, "image": null, "target": null });
    plans.patch("moves", &params, &change(nothing)).await?;
    Ok(())
}

#[tokio::test]
async fn a_status_has_only_phases_that_exist() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let plans = api(&client, "NodePlan");
    plans.create(&PostParams::default(), &object("NodePlan", "phases", &json!({}))).await?;
    let patch = Patch::Merge(json!({ "status": { "phase": "Dancing" } }));
    let said = plans.patch_status("phases", &PatchParams::default(), &patch).await.unwrap_err().to_string();
    assert!(said.contains("\"Idle\", \"Staging\", \"Staged\""), "{said}");
    Ok(())
}
