//! Operator and agents are replaced by another version's in the middle of a rollout, forwards and back: it goes on all the same.
//! `make versions OTHER=REVISION` builds the other version and runs these.

use std::{collections::BTreeSet, env, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::node_plan::Phase;
use evenkeel_tests::{
    binaries::Binaries,
    fleet::{Fleet, FleetOptions},
    machine::Event,
    os_image::{OsImage, slowly},
    watch::World,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

const ROLLOUT: Duration = Duration::from_mins(5);
/// In which phase each node's agent is replaced.
const REPLACED_IN: [(&str, Phase); 4] = [
    ("node-1", Phase::Staging),
    ("node-2", Phase::Staged),
    ("node-3", Phase::Trial),
    ("node-4", Phase::Committed),
];

fn other() -> Result<Binaries> {
    let folder = env::var_os("EVENKEEL_OTHER_VERSION").context("EVENKEEL_OTHER_VERSION names no folder")?;
    Binaries::in_folder(&PathBuf::from(folder))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of another version: make versions"]
async fn a_later_version_takes_over_in_the_middle() -> Result<()> {
    replaced_in_the_middle(other()?, Binaries::built().await?.clone()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of another version: make versions"]
async fn an_earlier_version_takes_over_in_the_middle() -> Result<()> {
    replaced_in_the_middle(Binaries::built().await?.clone(), other()?).await
}

/// The host's own programs stay those of `from`, as they do until a node runs an image that was built with others.
async fn replaced_in_the_middle(from: Binaries, to: Binaries) -> Result<()> {
    let fleet =
        Fleet::start(&FleetOptions { programs: Some(from), ..FleetOptions::of(REPLACED_IN.len()) }).await?;
    let bad = fleet.publish(&OsImage { healthy: false, ..OsImage::good("2") }).await?;
    fleet.want("os", &bad.tagged, json!({ "rollout": { "soakSeconds": 2 } })).await?;
    let failed = |world: &World| {
        let gone_back = |node: &&String| world.phase(node) == Phase::RolledBack && world.serves(node);
        fleet.machines.keys().find(gone_back).cloned()
    };
    let world = fleet.until("a node is back", ROLLOUT, |world| failed(world).is_some()).await?;
    let failed = failed(&world).context("no node is back")?;

    fleet.watch.forget();
    let good = fleet.publish(&OsImage::large("3")).await?;
    fleet.want("os", &good.tagged, json!({ "pull": slowly() })).await?;
    replace(&fleet, &to).await?;
    let world = fleet.until_all_run(&good.digest, ROLLOUT).await?;
    ensure!(world.worst <= 1, "{} nodes were out of service at once", world.worst);
    for (name, machine) in &fleet.machines {
        let slots: Vec<String> = machine.boots().into_iter().map(|boot| boot.slot).collect();
        let expected: &[&str] = if *name == failed { &["a", "b", "a", "b"] } else { &["a", "b"] };
        ensure!(slots == expected, "{name} was started from {slots:?}\n{}", fleet.account());
    }
    fleet.judge(1).await?;
    // What the one wrote down of the bad image, the other has not forgotten.
    let status = world.status(&failed).context("the plan has no status")?;
    ensure!(status.bad_digests.contains(&bad.digest), "{status:?}");
    Ok(())
}

/// Each agent in its phase, and the operator once the first node is on its way.
async fn replace(fleet: &Fleet, to: &Binaries) -> Result<()> {
    let (mut replaced, end) = (BTreeSet::new(), Instant::now() + ROLLOUT);
    let mut operator_replaced = false;
    while replaced.len() < REPLACED_IN.len() || !operator_replaced {
        ensure!(Instant::now() < end, "only {replaced:?} were replaced\n{}", fleet.account());
        let phases = fleet.watch.world().phases;
        for (node, phase) in REPLACED_IN {
            let seen = phases.iter().any(|(name, _, seen)| name == node && *seen == phase);
            if seen && replaced.insert(node) {
                fleet.machine(node)?.happen(Event::ReplaceAgent(to.agent.clone()));
            }
        }
        if !operator_replaced && phases.iter().any(|(.., phase)| *phase == Phase::Rebooting) {
            fleet.operators[0].replace(&to.operator)?;
            operator_replaced = true;
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
