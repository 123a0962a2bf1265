//! Storms over a rollout: the way to the API server is cut, the store stands still, replicas fight, others make noise. The
//! rollout ends all the same, and the store's own history is the judge.

mod noise;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::node_plan::Phase;
use evenkeel_e2e::{registry::Pushed, wait};
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    operator::{LEASE, Operator, SHORT_LEASE},
    os_image::OsImage,
    proxy::Way,
    rights::NAMESPACE,
    watch::World,
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::Api;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ROLLOUT: Duration = Duration::from_mins(5);
const NODES: usize = 4;
const BUDGET: usize = 2;
/// What no lease outlives: an attempt to renew it may begin as late as when it is over (two thirds of it) and takes a third of it
/// at most, and then it is given up. The rest is for a busy machine.
const LONGER_THAN_A_LEASE: u64 = LEASE as u64 + 4;
/// An operator that lives no longer than one of these in turn.
const LIVES: [u64; 6] = [700, 2300, 1100, 300, 2900, 1700];

async fn want(fleet: &Fleet, more: Value) -> Result<Pushed> {
    let second = fleet.publish(&OsImage::good("2")).await?;
    let mut spec = json!({ "rollout": { "maxUnavailable": BUDGET, "soakSeconds": 1 } });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    fleet.want("os", &second.tagged, spec).await?;
    Ok(second)
}

/// Waits until so many nodes have been told to reboot.
async fn under_way(fleet: &Fleet, nodes: usize) -> Result<()> {
    let told = |world: &World| {
        let gone = world.phases.iter().filter(|(.., phase)| *phase >= Phase::Rebooting);
        gone.map(|(node, ..)| node.clone()).collect::<BTreeSet<_>>().len()
    };
    fleet.until(&format!("{nodes} nodes are under way"), ROLLOUT, |world| told(world) >= nodes).await?;
    Ok(())
}

/// Every machine came to the image in one reboot, and never were more of them away than may be.
async fn in_good_order(fleet: &Fleet, digest: &str) -> Result<()> {
    fleet.until_all_run(digest, ROLLOUT).await?;
    let over = |world: &World| world.plans.values().all(|plan| plan.spec.disruption.is_none());
    fleet.until("all turns are over", ROLLOUT, over).await?;
    for (name, machine) in &fleet.machines {
        let slots: Vec<String> = machine.boots().into_iter().map(|boot| boot.slot).collect();
        ensure!(slots == ["a", "b"], "{name} was started from {slots:?}\n{}", fleet.account());
    }
    fleet.judge(BUDGET).await.with_context(|| fleet.account())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_the_api_server_is_cut_and_goes_silent() -> Result<()> {
    // As a user has it: the operator outlives what is short, and ends itself in what is longer than its lease.
    let fleet = Fleet::start(&FleetOptions::of(NODES)).await?;
    let second = want(&fleet, json!({})).await?;
    for (nodes, way, seconds) in
        [(1, Way::Cut, 3), (2, Way::Silent, 5), (3, Way::Silent, LONGER_THAN_A_LEASE)]
    {
        under_way(&fleet, nodes).await?;
        fleet.proxy.make(way);
        sleep(Duration::from_secs(seconds)).await;
        fleet.proxy.make(Way::Open);
    }
    in_good_order(&fleet, &second.digest).await?;
    let ended = fleet.operators[0].said("the lease could not be renewed in time")?;
    ensure!(ended, "it went on without its lease\n{}", fleet.operators[0].log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_stands_still_and_the_api_server_dies_while_operators_do() -> Result<()> {
    let mut fleet =
        Fleet::start(&FleetOptions { lease_seconds: SHORT_LEASE, ..FleetOptions::of(NODES) }).await?;
    let second = want(&fleet, json!({})).await?;
    let mut lives = LIVES.iter().cycle().map(|millis| Duration::from_millis(*millis));
    under_way(&fleet, 1).await?;
    fleet.cluster.plane.pause_etcd();
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        one_life(&fleet, &mut lives).await?;
    }
    fleet.cluster.plane.resume_etcd();
    for nodes in [3, NODES] {
        under_way(&fleet, nodes).await?;
        fleet.cluster.plane.kill_api_server();
        one_life(&fleet, &mut lives).await?;
        fleet.cluster.plane.restart_api_server().await?;
        one_life(&fleet, &mut lives).await?;
    }
    in_good_order(&fleet, &second.digest).await?;
    sees_what_is_wrong(&fleet).await
}

/// SIGKILL to the operator after a while.
async fn one_life(fleet: &Fleet, lives: &mut impl Iterator<Item = Duration>) -> Result<()> {
    sleep(lives.next().unwrap_or_default()).await;
    fleet.operators[0].kill();
    fleet.operators[0].restart()
}

/// Of a history with all those faults in it the judge still says so when there is something wrong in it.
async fn sees_what_is_wrong(fleet: &Fleet) -> Result<()> {
    let nodes: Api<Node> = Api::all(fleet.client.clone());
    for name in fleet.machines.keys().take(BUDGET + 1) {
        nodes.cordon(name).await?;
    }
    let verdict = fleet.judge(BUDGET).await.map_err(|error| format!("{error:#}"));
    ensure!(verdict.as_ref().is_err_and(|why| why.contains("worst: 3")), "the judge is blind: {verdict:?}");
    for name in fleet.machines.keys().skip(1).take(BUDGET) {
        nodes.uncordon(name).await?;
    }
    let left = fleet.judge(BUDGET + 1).await.map_err(|error| format!("{error:#}"));
    ensure!(left.as_ref().is_err_and(|why| why.contains("cordoned: {\"node-1\"}")), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_stand_still_and_go_on_never_act_beside_the_one_with_the_lease() -> Result<()> {
    let mut fleet =
        Fleet::start(&FleetOptions { lease_seconds: SHORT_LEASE, ..FleetOptions::of(NODES) }).await?;
    fleet.add_operator().await?;
    for operator in &fleet.operators {
        operator.wait_ready().await?;
    }
    let second = want(&fleet, json!({})).await?;
    let mut takeovers = 0;
    for nodes in [1, 2, 3] {
        under_way(&fleet, nodes).await?;
        let (leader, other) = replicas(&fleet).await?;
        leader.pause();
        let end = Instant::now() + ROLLOUT;
        while std::ptr::eq(replicas(&fleet).await?.0, leader) {
            ensure!(Instant::now() < end, "nobody took the lease:\n{}", other.log());
            sleep(Duration::from_millis(50)).await;
        }
        takeovers += 1;
        // The other one is at work when the first goes on.
        sleep(Duration::from_millis(400)).await;
        leader.resume();
    }
    in_good_order(&fleet, &second.digest).await?;
    let reigns = fleet.cluster.audit()?.reigns();
    ensure!(reigns.holders.len() > takeovers, "the log does not tell replicas apart: {reigns:?}");
    ensure!(reigns.acts >= 8 * NODES, "the log is not whole: {reigns:?}");
    ensure!(reigns.intrusions.is_empty(), "two acted at once: {:#?}", reigns.intrusions);
    Ok(())
}

/// The operator with the lease, and the other.
async fn replicas(fleet: &Fleet) -> Result<(&Operator, &Operator)> {
    let leases: Api<Lease> = Api::namespaced(fleet.client.clone(), NAMESPACE);
    let lease = leases.get("evenkeel-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let [one, other] = fleet.operators.as_slice() else { anyhow::bail!("there are not two replicas") };
    Ok(if holder == "operator-1" { (one, other) } else { (other, one) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_make_noise_the_api_server_refuses_and_watches_expire() -> Result<()> {
    // It lives through all of it: one that starts anew would have no watch that can expire.
    let mut fleet = Fleet::start(&FleetOptions { lease_seconds: 90, ..FleetOptions::of(NODES) }).await?;
    noise::learn_of_later_versions(&fleet).await?;
    let noise = noise::Noise::start(&fleet.client).await?;
    let ours = json!({ "matchExpressions": [{ "key": "node", "operator": "Exists" }] });
    let second = want(&fleet, json!({ "nodeSelector": ours, "mood": "hopeful" })).await?;
    under_way(&fleet, 1).await?;
    noise::say_more(&fleet, "node-1").await?;
    noise::refuse_operators(&fleet, true).await?;
    sleep(Duration::from_secs(6)).await;
    // While nodes reboot it may have nothing to ask for.
    wait::until(ROLLOUT, async || ensure_some_were_refused(&fleet)).await?;
    noise::refuse_operators(&fleet, false).await?;
    under_way(&fleet, 3).await?;
    fleet.proxy.make(Way::Cut);
    fleet.cluster.plane.restart_api_server().await?;
    fleet.proxy.make(Way::Open);
    in_good_order(&fleet, &second.digest).await?;
    noise.was_heard().await?;
    noise::all_is_kept(&fleet, "node-1").await?;
    ensure!(fleet.operators[0].said("too old resource version")?, "no watch expired");
    Ok(())
}

fn ensure_some_were_refused(fleet: &Fleet) -> Result<()> {
    let mut refused = fleet.cluster.audit()?.requests.into_iter().filter(|request| request.code == 429);
    ensure!(refused.any(|request| request.user.ends_with(":evenkeel-operator")), "none refused");
    Ok(())
}
