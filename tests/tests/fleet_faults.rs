//! What runs a rollout is killed while it goes on: it goes on all the same, and nothing is done twice.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use evenkeel_crds::{
    NodePlan,
    node_plan::{Phase, RollbackCause, Target},
};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    machine::Event,
    operator::SHORT_LEASE,
    os_image::{OsImage, slowly},
    watch::World,
};
use kube::{Api, api::DeleteParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

const ROLLOUT: Duration = Duration::from_mins(4);

/// Every machine came from the first image to the second in one reboot, and no two nodes were away at once.
async fn in_good_order(fleet: &Fleet, digest: &str) -> Result<()> {
    let world = fleet.until_all_run(digest, ROLLOUT).await?;
    assert!(world.worst <= 1, "{} nodes were out of service at once", world.worst);
    for (name, machine) in &fleet.machines {
        let slots: Vec<String> = machine.boots().into_iter().map(|boot| boot.slot).collect();
        assert_eq!(slots, ["a", "b"], "{name} was started more often than it had to be");
    }
    assert!(fleet.cordoned().await?.is_empty());
    fleet.judge(1).await?;
    Ok(())
}

fn all_run(fleet: &Fleet, world: &World, digest: &str) -> bool {
    fleet.machines.keys().all(|node| world.runs(node, digest) && world.serves(node))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_is_killed_at_every_step_that_shows_and_in_between() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(3)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, json!({})).await?;
    let mut known: BTreeSet<Step> = BTreeSet::new();
    let mut deaths = 0;
    // It is never left alone for longer than this; a life of it is long enough to get something done.
    let longest = Duration::from_millis(2300);
    let (mut born, end) = (Instant::now(), Instant::now() + ROLLOUT);
    while !all_run(&fleet, &fleet.watch.world(), &second.digest) && Instant::now() < end {
        let before = known.len();
        known.extend(steps(&fleet.watch.world()));
        if known.len() > before || born.elapsed() > longest {
            fleet.operators[0].kill();
            fleet.operators[0].restart()?;
            deaths += 1;
            born = Instant::now();
        }
        sleep(Duration::from_millis(10)).await;
    }
    // Each of three nodes was staged, started, cordoned, approved, tried and kept.
    assert!(deaths >= 12, "the operator died only {deaths} times, at {known:?}");
    in_good_order(&fleet, &second.digest).await
}

/// A step of a node's turn, as it shows in what the operator and the agent wrote.
type Step = (String, Option<Target>, bool, bool, Phase);

fn steps(world: &World) -> impl Iterator<Item = Step> {
    world.plans.iter().map(|(name, plan)| {
        let turn = plan.spec.disruption.is_some();
        (name.clone(), plan.spec.target, turn, world.serves(name), world.phase(name))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_operator_takes_over_when_the_one_with_the_lease_is_killed() -> Result<()> {
    let mut fleet = Fleet::start(&FleetOptions { lease_seconds: SHORT_LEASE, ..FleetOptions::of(3) }).await?;
    fleet.add_operator().await?;
    for operator in &fleet.operators {
        operator.wait_ready().await?;
    }
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, json!({})).await?;
    let done = |world: &World| fleet.machines.keys().filter(|node| world.runs(node, &second.digest)).count();
    fleet.until("the first node runs it", ROLLOUT, |world| done(world) >= 1).await?;
    fleet.operators[0].kill();
    fleet.until("the second node runs it", ROLLOUT, |world| done(world) >= 2).await?;
    // The first comes back and stands by; the second is asked to stop and gives its lease back.
    fleet.operators[0].restart()?;
    fleet.operators[0].wait_ready().await?;
    assert!(fleet.operators[1].stop().await, "{}", fleet.operators[1].log());
    in_good_order(&fleet, &second.digest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_killed_in_every_phase() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::large("2")).await?;
    fleet.want("os", &second.tagged, json!({ "pull": slowly(), "rollout": { "soakSeconds": 2 } })).await?;
    let mut killed: BTreeSet<(String, Phase)> = BTreeSet::new();
    let end = Instant::now() + ROLLOUT;
    while !all_run(&fleet, &fleet.watch.world(), &second.digest) && Instant::now() < end {
        for (node, _, phase) in fleet.watch.world().phases {
            if phase != Phase::Idle && killed.insert((node.clone(), phase)) {
                fleet.machine(&node)?.happen(Event::KillAgent);
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    let phases: BTreeSet<Phase> = killed.iter().map(|(_, phase)| *phase).collect();
    for phase in [Phase::Staging, Phase::Staged, Phase::Trial] {
        assert!(phases.contains(&phase), "the agent was never killed in {phase:?}: {killed:?}");
    }
    in_good_order(&fleet, &second.digest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_goes_while_it_stages_when_it_is_staged_on_trial_and_after() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::large("2")).await?;
    fleet.want("os", &second.tagged, json!({ "pull": slowly(), "rollout": { "soakSeconds": 2 } })).await?;
    let machine = fleet.machine("node-1")?;
    // Each start on trial uses up one of three tries; these cuts leave one.
    for phase in [Phase::Staging, Phase::Staged, Phase::Trial, Phase::Committed] {
        let seen = |world: &World| world.phases.iter().any(|(.., seen)| *seen >= phase);
        fleet.until(&format!("phase {phase:?}"), ROLLOUT, seen).await?;
        machine.happen(Event::PowerCut);
    }
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    let boots = machine.boots();
    assert!(boots.len() >= 5, "the power did not go four times: {boots:?}");
    assert!(boots.iter().all(|boot| boot.up), "a start failed: {boots:?}");
    assert_eq!(boots.last().map(|boot| boot.slot.as_str()), Some("b"));
    assert!(fleet.cordoned().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_server_and_registry_are_killed_in_the_middle() -> Result<()> {
    let mut fleet = Fleet::start(&FleetOptions::of(3)).await?;
    let second = fleet.publish(&OsImage::large("2")).await?;
    fleet.want("os", &second.tagged, json!({ "pull": slowly() })).await?;
    let staging = |world: &World| world.phases.iter().any(|(.., phase)| *phase == Phase::Staging);
    fleet.until("a node stages", ROLLOUT, staging).await?;
    fleet.registry.kill();
    sleep(Duration::from_secs(2)).await;
    fleet.registry.restart().await?;
    for phase in [Phase::Rebooting, Phase::Trial, Phase::Committed] {
        let seen = |world: &World| world.phases.iter().any(|(.., seen)| *seen >= phase);
        fleet.until("a node is on its way", ROLLOUT, seen).await?;
        fleet.cluster.plane.kill_api_server();
        sleep(Duration::from_secs(1)).await;
        fleet.cluster.plane.restart_api_server().await?;
    }
    in_good_order(&fleet, &second.digest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_not_held_to_be_bad_because_the_cluster_was_away() -> Result<()> {
    let mut fleet = Fleet::start(&FleetOptions { haste: 10, ..FleetOptions::of(1) }).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let short = json!({ "reboot": { "commitDeadlineSeconds": 120 }, "rollout": { "soakSeconds": 5 } });
    fleet.want("os", &second.tagged, short).await?;
    fleet.until("the trial", ROLLOUT, |world| world.phase("node-1") == Phase::Trial).await?;
    fleet.cluster.plane.kill_api_server();
    wait::until(ROLLOUT, async || {
        let boots = fleet.machine("node-1")?.boots();
        ensure!(boots.last().is_some_and(|boot| boot.slot == "a"), "node-1 is not back: {boots:?}");
        Ok(())
    })
    .await?;
    fleet.cluster.plane.restart_api_server().await?;
    let world =
        fleet.until("node-1 is back", ROLLOUT, |world| world.phase("node-1") == Phase::RolledBack).await?;
    let status = world.status("node-1").unwrap();
    let back = status.rolled_back.clone().unwrap();
    assert_eq!(back.cause, RollbackCause::ClusterUnreachable, "{}", back.message);
    assert!(status.bad_digests.is_empty(), "{status:?}");
    // Once a person has seen to it, the same image is tried again, and has time.
    fleet.want("os", &second.tagged, json!({ "rollout": { "soakSeconds": 0 } })).await?;
    let plans: Api<NodePlan> = Api::all(fleet.client.clone());
    plans.delete("node-1", &DeleteParams::default()).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    assert!(fleet.cordoned().await?.is_empty());
    Ok(())
}
