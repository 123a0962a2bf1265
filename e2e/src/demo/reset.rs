//! A machine that begins anew because its Node is annotated: its state is lost, its image and its place in the cluster are not.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::{
    names::RESET,
    node_plan::{NodePlanStatus, ResetStatus},
};

use super::{
    cluster::{Cluster, MACHINES},
    rollout::in_service,
    watch::Watch,
};
use crate::{process::output, progress, wait};

/// The machine that does.
pub const MACHINE: &str = MACHINES[0];
const LIMIT: Duration = Duration::from_mins(15);
/// What the initrd says once the partitions are empty.
const ANEW: &str = "this machine begins anew: state wipe, oem keep";

/// Asks [`MACHINE`] to lose its state, and waits until it serves again.
pub async fn run(cluster: &Cluster, watch: &Watch) -> Result<()> {
    let name = MACHINE;
    let before = status(watch, name)?;
    let mut kubectl = cluster.kubectl();
    kubectl.args(["annotate", "node", name, &format!("{RESET}=state")]);
    progress::step(&format!("kubectl annotate node {name} {RESET}=state"));
    output(kubectl).await?;
    let told = wait::until(LIMIT, async || over(watch, name, before.last_reset.as_ref()))
        .await
        .context("the reset does not end")?;
    ensure!(told.failed.is_none(), "{name} did not begin anew: {told:?}");
    let after = status(watch, name)?;
    let (old, new) = (before.booted.context("no image ran before")?, after.booted.context("no image runs")?);
    ensure!(old.boot_id != new.boot_id, "{name} was not rebooted");
    ensure!((old.slot, old.digest) == (new.slot, new.digest), "{name} runs another image than before");
    let console = fs::read(cluster.console(name)).context("read a machine's console")?;
    ensure!(String::from_utf8_lossy(&console).contains(ANEW), "the console of {name} does not say {ANEW:?}");
    Ok(())
}

fn status(watch: &Watch, name: &str) -> Result<NodePlanStatus> {
    let seen = watch.seen();
    let plan = seen.nodes.get(name).and_then(|node| node.plan.as_ref());
    plan.and_then(|plan| plan.status.clone()).with_context(|| format!("{name} has no plan"))
}

/// What the machine says of it, once everything is as it was; an error, which says why, while it is not.
fn over(watch: &Watch, name: &str, before: Option<&ResetStatus>) -> Result<ResetStatus> {
    let told = status(watch, name)?.last_reset;
    let told = told.filter(|told| Some(told) != before).context("the machine has said nothing yet")?;
    let seen = watch.seen();
    let node = seen.nodes.get(name).context("the node is gone")?;
    let plan = node.plan.as_ref().context("its plan is gone")?;
    ensure!(plan.spec.disruption.is_none() && plan.spec.reset.is_none(), "its turn has not ended");
    in_service(&seen).map(|()| told)
}
