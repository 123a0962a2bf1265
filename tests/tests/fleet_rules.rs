//! What belongs to whom: cordons, nodes, plans, and what is given back.

use std::time::Duration;

use anyhow::{Result, ensure};
use evenkeel_crds::{
    ManagedOSImage, NodePlan,
    names::{CORDONED_BY, FINALIZER},
    node_plan::Phase,
};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    watch::World,
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

const ROLLOUT: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordon_of_somebody_else_stays() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let nodes: Api<Node> = Api::all(fleet.client.clone());
    nodes.cordon("node-2").await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    // The cordoned node counts as unavailable, so that with a budget of one nothing else may start beside it.
    fleet.want("os", &second.tagged, json!({ "rollout": { "maxUnavailable": 2 } })).await?;
    let runs = |node: &'static str, digest: String| {
        move |world: &evenkeel_tests::watch::World| world.runs(node, &digest)
    };
    fleet.until("node-1 runs it", ROLLOUT, runs("node-1", second.digest.clone())).await?;
    fleet.until("node-2 runs it", ROLLOUT, runs("node-2", second.digest.clone())).await?;
    let ended = |world: &evenkeel_tests::watch::World| {
        world.plans.values().all(|plan| plan.spec.disruption.is_none()) && world.serves("node-1")
    };
    fleet.until("both turns have ended", ROLLOUT, ended).await?;
    assert_eq!(fleet.cordoned().await?, ["node-2"]);
    assert!(!nodes.get("node-2").await?.annotations().contains_key(CORDONED_BY));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_two_images_goes_to_the_older_and_the_younger_says_so() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let third = fleet.publish(&OsImage::good("3")).await?;
    fleet.want("older", &second.tagged, json!({})).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    fleet.want("younger", &third.tagged, json!({})).await?;
    let world = fleet
        .until("the younger says so", ROLLOUT, |world| {
            world.condition("younger", "Stalled").is_some_and(|(_, reason, _)| reason == "NodesBelongToOther")
        })
        .await?;
    let (status, _, message) = world.condition("younger", "Stalled").unwrap();
    assert_eq!(status, "True");
    for word in ["node-1", "older", "nodeSelector"] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    assert_eq!(fleet.machine("node-1")?.boots().len(), 2);
    fleet.unwant("older").await?;
    let world = fleet.until_all_run(&third.digest, ROLLOUT).await?;
    assert!(!world.images.contains_key("older"));
    Ok(())
}

/// The garbage collector looks for new kinds every 30 s. Once it knows plans, it deletes one whose owner never was.
async fn until_garbage_is_collected(fleet: &Fleet) -> Result<()> {
    let plans: Api<NodePlan> = Api::all(fleet.client.clone());
    let owner = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage", "name": "none",
        "uid": "00000000-0000-4000-8000-000000000000",
    });
    let stray = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": "NodePlan",
        "metadata": { "name": "stray", "ownerReferences": [owner] }, "spec": {},
    });
    fleet.create(&plans, stray).await?;
    wait::until(ROLLOUT, async || {
        ensure!(plans.get_opt("stray").await?.is_none(), "a plan without an owner is left");
        Ok(())
    })
    .await
}

/// In the foreground the cluster's garbage collector deletes what belongs to the image at once, the plan of a node on trial
/// too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_on_nodes_is_undone_when_the_image_is_deleted_in_the_middle() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions { control_plane_nodes: 1, ..FleetOptions::of(2) }).await?;
    until_garbage_is_collected(&fleet).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let (ask, answer) = ("example.com/ask", "example.com/answer");
    let gate =
        json!({ "name": "word", "intervalSeconds": 1, "annotation": { "request": ask, "answer": answer } });
    fleet.want("os", &second.tagged, json!({ "healthGates": [gate] })).await?;
    let asked = |world: &World| world.nodes["node-1"].annotations().get(ask).cloned();
    let waits = |world: &World| world.phase("node-1") == Phase::Trial && asked(world).is_some();
    let world = fleet.until("node-1 is on trial", ROLLOUT, waits).await?;
    assert_eq!(fleet.cordoned().await?, ["node-1"]);
    let images: Api<ManagedOSImage> = Api::all(fleet.client.clone());
    images.delete("os", &DeleteParams::foreground()).await?;
    let deleted = |world: &World| {
        let plan = world.plans.get("node-1");
        plan.is_none_or(|plan| plan.metadata.deletion_timestamp.is_some())
    };
    fleet.until("the garbage collector has deleted its plan", ROLLOUT, deleted).await?;
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { answer: asked(&world) } } }));
    let nodes: Api<Node> = Api::all(fleet.client.clone());
    nodes.patch("node-1", &PatchParams::default(), &patch).await?;
    fleet
        .until("the image is gone and both nodes serve", ROLLOUT, |world| {
            world.images.is_empty() && world.serves("node-1") && world.serves("node-2")
        })
        .await?;
    assert!(fleet.cordoned().await?.is_empty());
    for node in Api::<Node>::all(fleet.client.clone()).list(&kube::api::ListParams::default()).await? {
        assert!(!node.annotations().contains_key(CORDONED_BY), "{}", node.name_any());
    }
    assert_eq!(fleet.machine("node-2")?.boots().len(), 1, "node-2 was started after its image was deleted");
    let committed = |world: &World| {
        world.phases.iter().any(|(node, _, seen)| node == "node-1" && *seen == Phase::Committed)
    };
    fleet.until("node-1 has committed", ROLLOUT, committed).await?;
    // It is not left between two slots.
    let machine = fleet.machine("node-1")?;
    let slots = machine.slots().await?;
    assert!(slots.iter().all(|slot| slot["triesLeft"].is_null()), "{slots:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_deleted_in_its_nodes_turn_goes_when_that_ends() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, json!({ "rollout": { "soakSeconds": 5 } })).await?;
    let world =
        fleet.until("node-1 is on trial", ROLLOUT, |world| world.phase("node-1") == Phase::Trial).await?;
    let (plans, uid) = (Api::<NodePlan>::all(fleet.client.clone()), world.plans["node-1"].uid());
    plans.delete("node-1", &DeleteParams::default()).await?;
    let anew = |world: &World| {
        let plan = world.plans.get("node-1").filter(|plan| plan.uid() != uid);
        plan.is_some() && world.runs("node-1", &second.digest) && world.serves("node-1")
    };
    fleet.until("node-1 is kept, and has a new plan", ROLLOUT, anew).await?;
    assert!(fleet.cordoned().await?.is_empty());
    assert_eq!(fleet.machine("node-1")?.boots().len(), 2, "it went back");
    // The turn of a node that is gone has ended.
    let owner = world.images["os"].controller_owner_ref(&()).unwrap();
    let record =
        json!({ "since": "2026-01-01T00:00:00Z", "foundCordoned": false, "bootIdBefore": "b", "attempt": 1 });
    let ghost = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": "NodePlan",
        "metadata": { "name": "ghost", "finalizers": [FINALIZER], "ownerReferences": [owner] },
        "spec": { "disruption": record },
    });
    fleet.create(&plans, ghost).await?;
    wait::until(ROLLOUT, async || {
        ensure!(plans.get_opt("ghost").await?.is_none(), "its plan is left\n{}", fleet.account());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_the_next_node_and_a_changed_selector_lets_go() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let pause = json!({ "rollout": { "pauses": [{ "owner": "night-shift", "reason": "sleeping" }] } });
    fleet.want("os", &second.tagged, pause).await?;
    let world = fleet
        .until("the pause is shown", ROLLOUT, |world| {
            world.condition("os", "Ready").is_some_and(|(_, reason, _)| reason == "Paused")
        })
        .await?;
    assert!(world.condition("os", "Ready").unwrap().2.contains("night-shift"));
    assert!(fleet.machines.values().all(|machine| machine.boots().len() == 1));
    let selector = json!({ "nodeSelector": { "matchLabels": { "node": "node-2" } } });
    fleet.want("os", &second.tagged, selector).await?;
    fleet
        .until("node-2 runs it", ROLLOUT, |world| {
            world.runs("node-2", &second.digest) && world.serves("node-2")
        })
        .await?;
    assert_eq!(fleet.machine("node-1")?.boots().len(), 1);
    let plans: Api<NodePlan> = Api::all(fleet.client.clone());
    assert!(
        plans.get_opt("node-1").await?.is_none(),
        "a plan is left on a node that the image does not select"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_write_the_status_of_its_own_plan_and_nothing_else() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    fleet.want("os", &fleet.installed.tagged, json!({})).await?;
    fleet.until_all_run(&fleet.installed.digest, ROLLOUT).await?;
    let account = evenkeel_tests::rights::account(&fleet.client, "agent").await?;
    let token = evenkeel_tests::rights::token(&fleet.client, &account, Some("node-1")).await?;
    let plans: Api<NodePlan> = Api::all(fleet.cluster.plane.client_for(&token).await?);
    let patch = Patch::Merge(json!({ "status": { "phase": "Committed" } }));
    plans.patch_status("node-1", &PatchParams::default(), &patch).await?;
    let said = plans.patch_status("node-2", &PatchParams::default(), &patch).await.unwrap_err().to_string();
    assert!(said.contains("ValidatingAdmissionPolicy"), "{said}");
    assert_eq!(fleet.machine("node-1")?.boots().len(), 1, "an image that runs already needs no reboot");
    Ok(())
}
