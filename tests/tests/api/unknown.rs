//! Fields that there are not: never taken without a word.

use anyhow::{Context as _, Result};
use evenkeel_tests::cluster::Cluster;
use serde_json::json;

use crate::{api, object, refused::create};

#[tokio::test]
async fn kubectl_refuses_fields_that_there_are_not_whichever_way_it_writes() -> Result<()> {
    let cluster = Cluster::shared().await?;
    for field in ["rolout", "hook"] {
        let spec = json!({ "osImage": "os:1", field: {} });
        let manifest = serde_json::to_string(&object("ManagedOSImage", "unknown", &spec))?;
        for way in [&["apply", "--server-side", "-f", "-"][..], &["apply", "-f", "-"], &["create", "-f", "-"]]
        {
            let said = cluster.kubectl_with(way, &manifest).await.expect_err("kubectl took it").to_string();
            let strict = said.contains(&format!("unknown field \"spec.{field}\""));
            let typed = said.contains(&format!("spec.{field}: field not declared in schema"));
            assert!(strict || typed, "{way:?}: {said}");
        }
    }
    assert!(api(&cluster.client().await?, "ManagedOSImage").get_opt("unknown").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_client_that_asks_for_no_strictness_is_warned() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    for (kind, spec, field) in [
        (
            "ManagedOSImage",
            json!({ "osImage": "os:1", "rollout": { "maxUnavalable": 1 } }),
            "rollout.maxUnavalable",
        ),
        (
            "ManagedOSVersion",
            json!({ "version": "1", "metadata": { "upgradeImage": "os:1", "url": "" } }),
            "metadata.url",
        ),
        (
            "ManagedOSVersionChannel",
            json!({ "type": "json", "options": { "uri": "https://a.example" }, "interval": "1h" }),
            "interval",
        ),
        ("NodePlan", json!({ "pause": true }), "pause"),
    ] {
        let response = create(&client, kind, &spec, "Warn").await?;
        assert!(response.status().is_success(), "{kind}: {}", response.status());
        let warning = response.headers().get("warning").context("no warning")?.to_str()?;
        assert_eq!(warning, format!("299 - \"unknown field \\\"spec.{field}\\\"\""));
    }
    Ok(())
}
