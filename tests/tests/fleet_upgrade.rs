//! A fleet from one image to the next: the real operator, agent and guard, with machines whose boot loader is a model.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use evenkeel_crds::{
    names::CORDONED_BY,
    node_plan::{Phase, RollbackCause},
};
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    loader,
    machine::Boot,
    os_image::{KERNEL_PANICS, OsImage},
};
use kube::ResourceExt as _;
use serde_json::json;

/// Three nodes one after the other; each takes some seconds, and several times that on a busy machine.
const ROLLOUT: Duration = Duration::from_mins(4);

fn boots(fleet: &Fleet) -> BTreeMap<String, Vec<Boot>> {
    fleet.machines.iter().map(|(name, machine)| (name.clone(), machine.boots())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_get_a_new_image_one_at_a_time_and_a_bad_one_is_stopped_at_the_first() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions { control_plane_nodes: 1, ..FleetOptions::of(3) }).await?;
    upgrade(&fleet).await?;
    bad_image(&fleet).await?;
    let fixed = fleet.publish(&OsImage::good("4")).await?;
    fleet.watch.forget();
    fleet.want("os", &fixed.tagged, json!({ "rollout": { "maxUnavailable": 1 } })).await?;
    let world = fleet.until_all_run(&fixed.digest, ROLLOUT).await?;
    assert!(world.worst <= 1, "{} nodes were out of service at once", world.worst);
    Ok(())
}

async fn upgrade(fleet: &Fleet) -> Result<()> {
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, json!({ "rollout": { "maxUnavailable": 1 } })).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    let finished = |world: &evenkeel_tests::watch::World| {
        world.condition("os", "Ready").is_some_and(|(status, ..)| status == "True")
    };
    let world = fleet.until("the rollout is finished", Duration::from_secs(30), finished).await?;
    assert_eq!(world.worst, 1, "one node at a time, and each is cordoned before it reboots");
    assert_eq!(world.condition("os", "Ready").unwrap().1, "RolloutFinished");
    let status = world.images["os"].status.clone().unwrap();
    assert_eq!(
        status.image.as_deref(),
        Some(second.pinned.as_str()),
        "what the tag meant is kept as a digest"
    );
    assert_eq!(status.version.as_deref(), Some("2"));
    assert_eq!((status.nodes.total, status.nodes.updated, status.nodes.failed), (3, 3, 0));
    for (name, boots) in boots(fleet) {
        let [old, new] = &boots[..] else { panic!("{name} was started {} times: {boots:?}", boots.len()) };
        assert_eq!((old.slot.as_str(), old.digest.as_str()), ("a", fleet.installed.digest.as_str()));
        assert_eq!((new.slot.as_str(), new.digest.as_str()), ("b", second.digest.as_str()));
        assert_eq!(new.entry, "evenkeel-b+3.conf", "{name} was not booted on trial");
        assert_ne!(old.boot_id, new.boot_id);
        let files = loader::entry_files(&fleet.machine(&name)?.disk)?;
        assert_eq!(files, ["evenkeel-a.conf", "evenkeel-b.conf"], "{name}");
        assert_eq!(world.plans[&name].spec.image.as_deref(), Some(second.pinned.as_str()));
        assert!(!world.nodes[&name].annotations().contains_key(CORDONED_BY), "{name}");
    }
    assert!(fleet.cordoned().await?.is_empty());
    let order: Vec<&str> =
        world.phases.iter().filter(|seen| seen.2 == Phase::Trial).map(|seen| seen.0.as_str()).collect();
    assert_eq!(order.len(), 3, "{order:?}");
    // Of the others that one is next which is staged when the turn comes.
    assert_eq!(order[0], "node-1", "the control plane's node goes first");
    for node in fleet.machines.keys() {
        let phases: Vec<Phase> = world
            .phases
            .iter()
            .filter(|(name, plan, _)| name == node && !plan.is_empty())
            .map(|seen| seen.2)
            .collect();
        assert!(phases.is_sorted(), "{node}: {phases:?}");
    }
    for node in ["node-1", "node-2", "node-3"] {
        fleet.until_event("os", &["NodeUpdated", node]).await?;
    }
    Ok(())
}

/// The kernel of the image panics: the loader uses up its tries.
async fn bad_image(fleet: &Fleet) -> Result<()> {
    let before = boots(fleet);
    let bad = fleet.publish(&OsImage { kernel: Some(KERNEL_PANICS), ..OsImage::good("3-panics") }).await?;
    fleet.watch.forget();
    fleet.want("os", &bad.tagged, json!({ "rollout": { "maxUnavailable": 1 } })).await?;
    let world = fleet
        .until("the rollout is stopped and every node serves", ROLLOUT, |world| {
            let stopped =
                world.condition("os", "Stalled").is_some_and(|(_, reason, _)| reason == "RolloutStopped");
            let back = world.phase("node-1") == Phase::RolledBack;
            stopped && back && fleet.machines.keys().all(|node| world.serves(node))
        })
        .await?;
    let first = world.status("node-1").unwrap();
    assert_eq!(first.phase, Phase::RolledBack);
    assert_eq!(first.rolled_back.as_ref().unwrap().cause, RollbackCause::Bootloader);
    let (status, _, message) = world.condition("os", "Stalled").unwrap();
    assert_eq!(status, "True");
    for word in ["node-1", "Bootloader", &bad.digest, "osImage"] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    let after = boots(fleet);
    let entries: Vec<&str> = after["node-1"][2..].iter().map(|boot| boot.entry.as_str()).collect();
    assert_eq!(
        entries,
        ["evenkeel-a+3.conf", "evenkeel-a+2-1.conf", "evenkeel-a+1-2.conf", "evenkeel-b.conf"]
    );
    assert_eq!(
        after["node-1"].iter().map(|boot| boot.up).collect::<Vec<_>>(),
        [true, true, false, false, false, true]
    );
    for node in ["node-2", "node-3"] {
        assert_eq!(after[node], before[node], "{node} was touched");
    }
    assert!(world.worst <= 1);
    assert!(fleet.cordoned().await?.is_empty());
    fleet.until_event("os", &["NodeRolledBack", "node-1", "Bootloader"]).await?;
    // Nothing more happens: the same digest is not tried again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(boots(fleet), after);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_well_goes_back_with_the_word_of_its_health_check() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let ill = fleet.publish(&OsImage { healthy: false, ..OsImage::good("2-ill") }).await?;
    // The soak time is longer than the guard takes to be sure.
    fleet.want("os", &ill.tagged, json!({ "rollout": { "soakSeconds": 120 } })).await?;
    let world = fleet
        .until("node-1 is back and the rollout stopped", ROLLOUT, |world| {
            world.phase("node-1") == Phase::RolledBack
                && world.serves("node-1")
                && world.condition("os", "Stalled").is_some_and(|(_, reason, _)| reason == "RolloutStopped")
        })
        .await?;
    let back = world.status("node-1").unwrap().rolled_back.clone().unwrap();
    assert_eq!(back.cause, RollbackCause::HostCheck);
    assert!(back.message.contains("the model is not well"), "{}", back.message);
    assert!(world.condition("os", "Stalled").unwrap().2.contains("the model is not well"));
    assert_eq!(fleet.machine("node-1")?.boots().len(), 3);
    assert_eq!(fleet.machine("node-2")?.boots().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_become_ready_is_sent_back_by_the_operator() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let gate = json!({
        "reboot": { "deadlineSeconds": 60 },
        "healthGates": [{ "name": "network", "nodeCondition": { "type": "NetworkUnavailable", "status": "False" } }],
    });
    fleet.want("os", &second.tagged, gate).await?;
    let world = fleet
        .until("node-1 is back", ROLLOUT, |world| {
            world.phase("node-1") == Phase::RolledBack && world.serves("node-1")
        })
        .await?;
    let back = world.status("node-1").unwrap().rolled_back.clone().unwrap();
    assert_eq!(back.cause, RollbackCause::ClusterGate);
    assert!(
        back.message.contains("gate network: condition NetworkUnavailable is absent, not False"),
        "{}",
        back.message
    );
    let slots: Vec<String> = fleet.machine("node-1")?.boots().into_iter().map(|boot| boot.slot).collect();
    assert_eq!(slots, ["a", "b", "a"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_that_nobody_commits_ends_on_the_old_slot_by_itself() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions { haste: 10, ..FleetOptions::of(1) }).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let slow = json!({ "reboot": { "commitDeadlineSeconds": 150 }, "rollout": { "soakSeconds": 600 } });
    fleet.want("os", &second.tagged, slow).await?;
    fleet.until("the trial", ROLLOUT, |world| world.phase("node-1") == Phase::Trial).await?;
    fleet.operators[0].kill();
    let world =
        fleet.until("node-1 is back", ROLLOUT, |world| world.phase("node-1") == Phase::RolledBack).await?;
    let back = world.status("node-1").unwrap().rolled_back.clone().unwrap();
    assert_eq!(back.cause, RollbackCause::Deadline);
    assert_eq!(fleet.machine("node-1")?.boots().last().unwrap().slot, "a");
    fleet.operators[0].restart()?;
    fleet.until("node-1 serves again", ROLLOUT, |world| world.serves("node-1")).await?;
    assert!(fleet.cordoned().await?.is_empty());
    Ok(())
}

/// The registry that the image is named after does not exist, and the first of its mirrors does not either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_and_agent_get_an_image_from_the_mirror_that_the_image_object_names() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let address = fleet.registry.address();
    let image = second.tagged.replace(&address, "registry.invalid");
    let mirrors = json!([
        { "registry": "registry.invalid", "url": "http://127.0.0.1:1", "resolve": true },
        { "registry": "registry.invalid", "url": format!("http://{address}"), "resolve": true },
    ]);
    fleet.want("os", &image, json!({ "pull": { "mirrors": mirrors } })).await?;
    let world = fleet.until_all_run(&second.digest, ROLLOUT).await?;
    let plan = &world.plans["node-1"];
    assert_eq!(plan.spec.pull.mirrors.len(), 2);
    let pinned = second.pinned.replace(&address, "registry.invalid");
    assert_eq!(plan.spec.image.as_deref(), Some(pinned.as_str()));
    Ok(())
}
