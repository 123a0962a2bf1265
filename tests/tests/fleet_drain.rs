//! How pods leave nodes: what is in their way, in which order, how long it may take, and what keeps others away meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use evenkeel_crds::names::{LIFECYCLE_REASON, OUTDATED, TRIAL_TAINT};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    rights,
    watch::World,
};
use k8s_openapi::api::{
    core::v1::Pod, policy::v1::PodDisruptionBudget, scheduling::v1::PriorityClass,
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

const ROLLOUT: Duration = Duration::from_mins(4);

fn taints(world: &World, node: &str) -> Vec<String> {
    let spec = world.nodes.get(node).and_then(|node| node.spec.as_ref());
    spec.iter().flat_map(|spec| spec.taints.iter().flatten()).map(|taint| taint.key.clone()).collect()
}

/// Which lifecycle conditions a node has.
fn lifecycle(world: &World, node: &str) -> Vec<String> {
    let status = world.nodes.get(node).and_then(|node| node.status.as_ref());
    let conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ours = conditions.filter(|condition| condition.reason.as_deref() == Some(LIFECYCLE_REASON));
    ours.map(|condition| condition.type_.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_named_before_the_cordon_and_another_node_goes_first() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    fleet.guard_with_budget("web", "node-1").await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, json!({})).await?;
    let blocked = |world: &World| {
        let said = world.summary("os");
        said.contains("node-1")
            && said.contains("disruption budget web")
            && world.runs("node-2", &second.digest)
    };
    let world = fleet.until("node-1 waits for its budget and node-2 goes first", ROLLOUT, blocked).await?;
    assert!(world.serves("node-1"), "a node that may not leave is cordoned");
    let plan = &world.plans["node-1"];
    assert!(plan.spec.disruption.is_none(), "its turn has begun: {plan:?}");
    assert_eq!(fleet.machine("node-1")?.boots().len(), 1);
    fleet.until_event("os", &["NodeHeldBack", "node-1", "disruption budget web"]).await?;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(fleet.client.clone());
    budgets.delete("web", &DeleteParams::default()).await?;
    // Its workload is bound to the node, and would come back for as long as it is there.
    fleet.cluster.kubectl(&["delete", "replicaset", "web"]).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_drain_goes_on_or_gives_up_or_deletes_as_was_asked() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    fleet.guard_with_budget("web", "node-1").await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let drain = |on_timeout: &str| json!({ "drain": { "dryRun": false, "timeoutSeconds": 2, "onTimeout": on_timeout } });
    fleet.want("os", &second.tagged, drain("Retry")).await?;
    fleet.until("the drain begins", ROLLOUT, |world| !world.serves("node-1")).await?;
    fleet.until_event("os", &["DrainOverdue", "node-1", "disruption budget web"]).await?;
    assert_eq!(fleet.cordoned().await?, ["node-1"], "it goes on");
    // With two of them the API server says that it does not know what to do.
    fleet.budget("web-too", "web").await?;
    let named = |world: &World| world.summary("os").contains("more than one PodDisruptionBudget");
    fleet.until("what the API server says is shown", ROLLOUT, named).await?;
    fleet.want("os", &second.tagged, drain("Force")).await?;
    let forbidden = |world: &World| world.summary("os").contains("operator.forceDrain");
    fleet.until("the right that is missing is named", ROLLOUT, forbidden).await?;
    rights::apply_with(&fleet.cluster, &["--set", "operator.forceDrain=true"]).await?;
    let gone = |world: &World| !world.summary("os").contains("operator.forceDrain");
    fleet.until("the pod is deleted", ROLLOUT, gone).await?;
    // Its set makes another one at once, which goes the same way; without it the node is empty.
    fleet.cluster.kubectl(&["delete", "replicaset", "web", "--cascade=orphan"]).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;

    fleet.guard_with_budget("db", "node-1").await?;
    let third = fleet.publish(&OsImage::good("3")).await?;
    fleet.want("os", &third.tagged, drain("UncordonAndFail")).await?;
    let failed = |world: &World| {
        world.condition("os", "Stalled").is_some_and(|(status, _, message)| {
            status == "True"
                && message.contains("did not end in 2 s")
                && message.contains("disruption budget db")
        })
    };
    let world = fleet.until("the drain is given up", ROLLOUT, failed).await?;
    assert!(!world.runs("node-1", &third.digest));
    fleet.until("the node serves", ROLLOUT, |world| world.serves("node-1")).await?;
    assert_eq!(fleet.machine("node-1")?.boots().len(), 2, "it was rebooted without being drained");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_leave_by_priority_then_volumes_and_taints_keep_others_away() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions { lifecycle_conditions: true, ..FleetOptions::of(2) }).await?;
    let classes: Api<PriorityClass> = Api::all(fleet.client.clone());
    fleet.create(&classes, json!({ "metadata": { "name": "high" }, "value": 1000 })).await?;
    let held = json!({ "finalizers": ["example.com/hold"] });
    fleet.bare_pod("low", "node-1", &held, &json!({})).await?;
    fleet.bare_pod("high", "node-1", &held, &json!({ "priorityClassName": "high" })).await?;
    fleet.bare_pod("kept", "node-1", &json!({ "labels": { "stays": "yes" } }), &json!({})).await?;
    let attachments: Api<VolumeAttachment> = Api::all(fleet.client.clone());
    let attachment = json!({
        "metadata": { "name": "csi-1" },
        "spec": { "attacher": "csi.example.com", "nodeName": "node-1", "source": { "persistentVolumeName": "pv-1" } },
    });
    fleet.create(&attachments, attachment).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let drain = json!({
        "drain": {
            "force": true, "order": "ByPriority", "preferNoSchedule": true, "taint": { "key": "example.com/trial" },
            "podSelector": { "matchExpressions": [{ "key": "stays", "operator": "DoesNotExist" }] },
        },
        "nodeSelector": { "matchLabels": { "node": "node-1" } },
    });
    fleet.want("os", &second.tagged, drain.clone()).await?;
    let pods: Api<Pod> = Api::default_namespaced(fleet.client.clone());
    let leaving = async || -> Result<Vec<String>> {
        let all = pods.list(&ListParams::default()).await?.items;
        let going = all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
        Ok(going.map(|pod| pod.name_any()).collect())
    };
    let let_go = async |name: &str| -> Result<()> {
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        pods.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    };
    let shown = |number: usize| {
        move |world: &World| world.summary("os").contains(&format!("draining, pods left: {number}"))
    };
    fleet.until("the low one is asked", ROLLOUT, shown(2)).await?;
    wait::until(ROLLOUT, async || {
        ensure!(!leaving().await?.is_empty(), "none is asked");
        Ok(())
    })
    .await?;
    assert_eq!(leaving().await?, ["low"], "the high one waits until the low one is gone");
    let world = fleet.watch.world();
    let here = taints(&world, "node-1");
    assert!(here.iter().any(|key| key == "example.com/trial"), "{here:?}");
    assert_eq!(world.nodes["node-1"].annotations()[TRIAL_TAINT], "example.com/trial");
    fleet
        .until("others are told of the drain", ROLLOUT, |world| {
            lifecycle(world, "node-1") == ["DrainInProgress"]
        })
        .await?;
    let_go("low").await?;
    wait::until(ROLLOUT, async || {
        ensure!(leaving().await?.contains(&"high".to_owned()), "it is not asked");
        Ok(())
    })
    .await?;
    let_go("high").await?;
    let attached = |world: &World| world.summary("os").contains("volume pv-1");
    fleet.until("the volume is waited for", ROLLOUT, attached).await?;
    assert_eq!(fleet.machine("node-1")?.boots().len(), 1);
    attachments.delete("csi-1", &DeleteParams::default()).await?;
    let down = |world: &World| {
        lifecycle(world, "node-1").iter().any(|kind| kind == "MaintenanceInProgress")
            && lifecycle(world, "node-1").iter().any(|kind| kind == "Drained")
    };
    fleet.until("others are told that it is down", ROLLOUT, down).await?;
    fleet
        .until("node-1 runs it", ROLLOUT, |world| {
            world.runs("node-1", &second.digest) && world.serves("node-1")
        })
        .await?;
    assert!(pods.get_opt("kept").await?.is_some(), "a pod that is not selected was evicted");

    // All nodes by now; a pause lets us see which of them wait.
    let third = fleet.publish(&OsImage::good("3")).await?;
    let mut all = drain;
    all.as_object_mut().unwrap().remove("nodeSelector");
    all["rollout"] = json!({ "pauses": [{ "owner": "test" }] });
    fleet.want("os", &third.tagged, all.clone()).await?;
    let marked = |world: &World| {
        ["node-1", "node-2"].iter().all(|node| taints(world, node).contains(&OUTDATED.to_owned()))
    };
    fleet.until("both are marked", ROLLOUT, marked).await?;
    all.as_object_mut().unwrap().remove("rollout");
    fleet.want("os", &third.tagged, all).await?;
    fleet.until_all_run(&third.digest, ROLLOUT).await?;
    let clean = |world: &World| {
        world.nodes.keys().all(|node| {
            taints(world, node).iter().all(|key| !key.contains("evenkeel") && !key.contains("trial"))
                && lifecycle(world, node).is_empty()
        })
    };
    fleet.until("nothing of ours is left on a node", ROLLOUT, clean).await?;
    Ok(())
}
