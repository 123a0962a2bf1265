//! A machine that begins anew from the cluster, with the real operator, agent and guard: it is drained, loses what was named
//! and nothing else, and does so once.

use std::{fs, time::Duration};

use anyhow::Result;
use evenkeel_crds::{names::RESET, node_plan::TurnOutcome};
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    watch::World,
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(4);

async fn annotate(fleet: &Fleet, node: &str, what: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(fleet.client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { RESET: what } } }));
    nodes.patch(node, &PatchParams::default(), &patch).await?;
    Ok(())
}

fn is_over(world: &World, node: &str) -> bool {
    let wanted = world.nodes[node].annotations().contains_key(RESET);
    let plan = &world.plans[node].spec;
    !wanted && plan.disruption.is_none() && plan.reset.is_none() && world.serves(node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_begins_anew_once_and_keeps_its_image() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, json!({ "cordon": true })).await?;
    fleet.until_all_run(&second.digest, LIMIT).await?;
    let mine = fleet.machine("node-1")?.state_dir.join("mine");
    fs::write(&mine, "a file of the state partition")?;

    annotate(&fleet, "node-1", "everything").await?;
    let told = |world: &World| world.summary("os").contains("`state`, `oem` or `state,oem`");
    fleet.until("what cannot be understood is told", LIMIT, told).await?;
    assert!(mine.exists() && fleet.machine("node-1")?.boots().len() == 2);

    fleet.watch.forget();
    annotate(&fleet, "node-1", "state").await?;
    let done = |world: &World| is_over(world, "node-1") && world.runs("node-1", &second.digest);
    let world = fleet.until("node-1 has begun anew", LIMIT, done).await?;
    assert!(!mine.exists(), "its state is what it was");
    assert_eq!(world.worst, 1, "it was cordoned");
    let boots = fleet.machine("node-1")?.boots();
    assert_eq!(
        (boots.len(), boots[2].slot.as_str(), boots[2].digest.as_str()),
        (3, "b", second.digest.as_str())
    );
    let status = world.status("node-1").unwrap();
    assert!(status.last_reset.as_ref().is_some_and(|last| last.failed.is_none()), "{status:?}");
    let last = world.plans["node-1"].spec.last_turn.as_ref();
    assert_eq!(last.map(|turn| turn.outcome), Some(TurnOutcome::Updated), "it says nothing of the image");
    assert_eq!(fleet.machine("node-2")?.boots().len(), 2);
    fleet.until_event("os", &["NodeResetStarted", "node-1"]).await?;
    fleet.until_event("os", &["NodeReset", "has begun anew"]).await?;

    // The agent is killed meanwhile: the machine begins anew once all the same.
    fs::write(&mine, "again")?;
    annotate(&fleet, "node-1", "oem").await?;
    fleet.machine("node-1")?.happen(evenkeel_tests::machine::Event::KillAgent);
    let quiet = |world: &World| {
        // Before the order is seen all is as it was.
        let begun = fleet.machine("node-1").is_ok_and(|machine| machine.boots().len() > 3);
        begun && done(world) && world.condition("os", "Ready").is_some_and(|(status, ..)| status == "True")
    };
    fleet.until("node-1 has begun anew again, and nothing is left to do", LIMIT, quiet).await?;
    assert!(mine.exists(), "only what was named is lost");
    assert_eq!(fleet.machine("node-1")?.boots().len(), 4);
    assert!(fleet.cordoned().await?.is_empty());
    Ok(())
}
