//! A rollout as kstatus and Prometheus see it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    judges::{kstatus, promtool},
    os_image::{KERNEL_PANICS, OsImage},
};
use serde_json::{Value, json};

use crate::{documented, names};

/// Two nodes one after the other; each takes some seconds, and several times that on a busy machine.
const ROLLOUT: Duration = Duration::from_mins(4);

/// What kstatus says of the image object once its `Ready` condition has this reason.
async fn judged(fleet: &Fleet, reason: &str) -> Result<(String, String)> {
    let is = |world: &evenkeel_tests::watch::World| {
        world.condition("os", "Ready").is_some_and(|(_, why, _)| why == reason)
    };
    let world = fleet.until(&format!("Ready says {reason}"), ROLLOUT, is).await?;
    kstatus(&serde_json::to_value(&world.images["os"])?).await
}

/// What kstatus says of the image object as the API server has it now.
async fn judged_now(fleet: &Fleet) -> Result<(String, String)> {
    let object: Value =
        serde_json::from_str(&fleet.cluster.kubectl(&["get", "mosi", "os", "-o", "json"]).await?)?;
    kstatus(&object).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_as_kstatus_and_prometheus_see_it() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;

    fleet.operators[0].kill();
    fleet.want("os", &second.tagged, json!({})).await?;
    let (status, why) = judged_now(&fleet).await?;
    assert_eq!(status, "InProgress", "nobody has looked at it yet: {why}");
    fleet.operators[0].restart()?;
    assert_eq!(judged(&fleet, "RolloutInProgress").await?.0, "InProgress");
    assert_eq!(judged(&fleet, "RolloutFinished").await?.0, "Current");
    metrics(&fleet).await?;

    fleet.operators[0].kill();
    fleet.want("os", &second.tagged, json!({ "reboot": { "delaySeconds": 1 } })).await?;
    let (status, why) = judged_now(&fleet).await?;
    assert_eq!(status, "InProgress", "what is said is of an older spec: {why}");
    fleet.operators[0].restart()?;

    let bad = fleet.publish(&OsImage { kernel: Some(KERNEL_PANICS), ..OsImage::good("3-panics") }).await?;
    let paused = json!({ "rollout": { "pauses": [{ "owner": "me" }] } });
    fleet.want("os", &bad.tagged, paused).await?;
    assert_eq!(judged(&fleet, "Paused").await?.0, "InProgress");
    let missing = format!("{}/model/no-such-image:1", fleet.registry.address());
    fleet.want("os", &missing, json!({})).await?;
    assert_eq!(judged(&fleet, "ImageNotFound").await?.0, "Failed");
    fleet.want("os", &bad.tagged, json!({})).await?;
    let (status, why) = judged(&fleet, "RolloutStopped").await?;
    assert_eq!(status, "Failed");
    assert!(
        why.contains("node-1") || why.contains("node-2"),
        "kstatus does not say which node failed: {why}"
    );
    Ok(())
}

async fn metrics(fleet: &Fleet) -> Result<()> {
    let answer = fleet.operators[0].get("/metrics").await?;
    let (head, text) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    promtool(&["check", "metrics"], text).await?;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exported: BTreeSet<String> = types.flat_map(names).collect();
    // Where nothing failed, nobody waits and there is no channel, there is nothing to show.
    let quiet = [
        "evenkeel_api_errors_total",
        "evenkeel_reconcile_errors_total",
        "evenkeel_nodes_held",
        "evenkeel_rollout_next_window_timestamp_seconds",
        "evenkeel_channel_fetched_timestamp_seconds",
        "evenkeel_channel_failing",
        "evenkeel_channel_failures_total",
    ];
    let quiet: BTreeSet<String> = quiet.into_iter().map(str::to_owned).collect();
    let known = documented()?;
    assert!(exported.is_subset(&known), "not documented: {:?}", exported.difference(&known));
    let absent: BTreeSet<String> = known.difference(&exported).cloned().collect();
    assert!(absent.is_subset(&quiet), "not exported: {absent:?}");
    for line in [
        "evenkeel_leader 1",
        r#"evenkeel_nodes_updated{image="os"} 2"#,
        r#"evenkeel_nodes_selected{image="os"} 2"#,
        r#"evenkeel_nodes{image="os",phase="Committed"} 2"#,
        r#"evenkeel_image_condition{image="os",condition="Ready"} 1"#,
        r#"evenkeel_rollout_window_open{image="os"} 1"#,
        r#"evenkeel_turns_total{result="Updated",cause=""} 2"#,
        r#"evenkeel_step_seconds_count{step="Turn"} 2"#,
        r#"evenkeel_step_seconds_count{step="Staging"} 2"#,
        r#"evenkeel_step_seconds_count{step="Trial"} 2"#,
        r#"evenkeel_actions_total{action="ApproveReboot"} 2"#,
    ] {
        assert!(text.lines().any(|has| has == line), "{line} is not in:\n{text}");
    }
    assert!(text.contains(r#"evenkeel_api_requests_total{method="PATCH",code="200"}"#), "{text}");
    assert!(!text.contains("node-"), "a label has the name of a node:\n{text}");
    Ok(())
}
