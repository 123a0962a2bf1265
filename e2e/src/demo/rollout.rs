//! One image applied, followed to its end, and held against what is expected.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::{
    ManagedOSImageStatus, NodePlanStatus,
    condition::ConditionStatus,
    node_plan::{Phase, RollbackCause},
};

use super::{
    cluster::{Cluster, MACHINES},
    manifests,
    report::{NodeReport, Scenario},
    watch::{NodeSeen, Seen, Watch},
};
use crate::wait;

/// Two machines that stage and reboot one after the other under emulation, with all of it five times slower than here.
const ROLLOUT_LIMIT: Duration = Duration::from_mins(25);
const WORKLOAD_LIMIT: Duration = Duration::from_mins(3);

/// What an image is expected to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every node keeps it.
    Committed,
    /// Every node keeps another cloud-config, without a reboot.
    Configured,
    /// Its health check fails on the first node.
    HealthCheck,
    /// Its kernel panics on the first node.
    Panic,
}

impl Expected {
    fn cause(self) -> Option<RollbackCause> {
        match self {
            Self::Committed | Self::Configured => None,
            Self::HealthCheck => Some(RollbackCause::HostCheck),
            Self::Panic => Some(RollbackCause::Bootloader),
        }
    }
}

/// Waits until both replicas are there.
pub async fn workload_available(watch: &Watch) -> Result<()> {
    wait::until(WORKLOAD_LIMIT, async || {
        ensure!(watch.seen().lowest_available.is_some(), "the workload's replicas are not available");
        Ok(())
    })
    .await
}

/// Applies `file`, waits until the rollout is over, and tells what was expected and did not happen.
pub async fn run(
    cluster: &Cluster,
    watch: &Watch,
    name: &str,
    file: &str,
    expected: Expected,
) -> Result<(Scenario, Vec<String>)> {
    let before: Vec<NodeReport> =
        MACHINES.iter().enumerate().map(|(index, node)| before(cluster, watch, index, node)).collect();
    watch.seen().nodes.values_mut().for_each(|node| node.seconds_out = None);
    let generation = watch.seen().image.as_ref().and_then(|image| image.metadata.generation).unwrap_or(0);
    let start = Instant::now();
    manifests::apply(cluster, file).await?;
    wait::until(ROLLOUT_LIMIT, async || over(watch, generation, expected))
        .await
        .context("the rollout does not end")?;
    let nodes: Vec<NodeReport> = before.into_iter().map(|node| after(watch, node)).collect();
    let seen = watch.seen();
    let image = seen.image.as_ref().context("the image object is gone")?;
    let scenario = Scenario {
        name: name.to_owned(),
        image: image.spec.os_image.clone().unwrap_or_default(),
        seconds: start.elapsed().as_secs_f64(),
        summary: image.status.as_ref().and_then(|status| status.summary.clone()).unwrap_or_default(),
        nodes,
    };
    drop(seen);
    let unmet = unmet(watch, &scenario, expected);
    Ok((scenario, unmet.into_iter().map(|what| format!("{name}: {what}")).collect()))
}

fn status(node: &NodeSeen) -> Option<&NodePlanStatus> {
    node.plan.as_ref()?.status.as_ref()
}

fn before(cluster: &Cluster, watch: &Watch, index: usize, name: &str) -> NodeReport {
    let seen = watch.seen();
    let node = seen.nodes.get(name);
    let booted = node.and_then(status).and_then(|status| status.booted.as_ref());
    // Before the first image object there is no plan: what was installed runs.
    let digest =
        booted.map(|booted| booted.digest.clone()).or_else(|| cluster.installed[index].digest.clone());
    NodeReport {
        name: name.to_owned(),
        boot_id_before: node.map(|node| node.boot_id.clone()).unwrap_or_default(),
        digest_before: digest.unwrap_or_default(),
        ..NodeReport::default()
    }
}

fn after(watch: &Watch, mut report: NodeReport) -> NodeReport {
    let seen = watch.seen();
    let Some(node) = seen.nodes.get(&report.name) else { return report };
    report.boot_id_after.clone_from(&node.boot_id);
    report.seconds_out_of_service = node.seconds_out;
    if let Some(status) = status(node) {
        report.take(status);
    }
    if report.boot_id_after == report.boot_id_before {
        // What the plan still says of an earlier image is not this scenario's.
        (report.seconds_staging, report.bytes_downloaded, report.bytes_written) = (None, None, None);
    }
    report
}

/// An error, which says why, while the rollout goes on.
fn over(watch: &Watch, generation: i64, expected: Expected) -> Result<()> {
    let seen = watch.seen();
    let image = seen.image.as_ref().context("the image object was not seen yet")?;
    let observed = image.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    ensure!(observed > generation, "the operator has not looked at it");
    let status = image.status.clone().unwrap_or_default();
    let summary = status.summary.clone().unwrap_or_default();
    let wanted = if expected.cause().is_none() { "Ready" } else { "Stalled" };
    ensure!(holds(&status, wanted), "{summary}");
    in_service(&seen)
}

/// Whether every node serves and the workload is whole; an error, which says what is not.
pub fn in_service(seen: &Seen) -> Result<()> {
    for (name, node) in &seen.nodes {
        ensure!(node.ready && !node.cordoned, "{name} is not back in service");
    }
    ensure!(seen.available.is_some_and(|available| available >= 2), "the workload is not whole again");
    Ok(())
}

fn holds(status: &ManagedOSImageStatus, kind: &str) -> bool {
    status.conditions.iter().any(|c| c.r#type == kind && c.status == ConditionStatus::True)
}

fn unmet(watch: &Watch, scenario: &Scenario, expected: Expected) -> Vec<String> {
    let mut unmet = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            unmet.push(what);
        }
    };
    let changed = |node: &NodeReport| node.boot_id_before != node.boot_id_after;
    let Some(cause) = expected.cause() else {
        for node in &scenario.nodes {
            let name = &node.name;
            expect(
                node.digest_before != node.digest_after,
                format!("{name} runs something else than before"),
            );
            expect(node.phase == "Committed", format!("{name} is Committed, not {}", node.phase));
            if expected == Expected::Configured {
                expect(!changed(node), format!("{name} was not rebooted"));
                expect(node.seconds_out_of_service.is_none(), format!("{name} was never out of service"));
                continue;
            }
            expect(changed(node), format!("{name} was rebooted"));
            expect(node.seconds_out_of_service.is_some(), format!("{name} was cordoned and Ready again"));
            expect(node.seconds_staging.is_some(), format!("{name} says what staging took"));
        }
        return unmet;
    };
    let (back, others): (Vec<_>, Vec<_>) =
        scenario.nodes.iter().partition(|node| node.phase == format!("{:?}", Phase::RolledBack));
    expect(back.len() == 1, format!("one node is RolledBack, not {}", back.len()));
    for node in &scenario.nodes {
        expect(
            node.digest_before == node.digest_after,
            format!("{} runs the image that it ran before", node.name),
        );
    }
    for node in back {
        let said = node.rolled_back.clone().unwrap_or_default();
        expect(changed(node), format!("{} was rebooted", node.name));
        expect(
            said.starts_with(&format!("{cause:?}: ")),
            format!("{} went back because of {cause:?}, not {said:?}", node.name),
        );
    }
    for node in others {
        expect(!changed(node), format!("{} was not touched", node.name));
    }
    let seen = watch.seen();
    let conditions =
        seen.image.as_ref().and_then(|image| image.status.as_ref()).map(|s| s.conditions.clone());
    let stalled = conditions.unwrap_or_default().into_iter().find(|condition| condition.r#type == "Stalled");
    let message = stalled.map(|condition| condition.message).unwrap_or_default();
    expect(message.contains("vm"), format!("the image's condition names the node: {message:?}"));
    unmet
}
