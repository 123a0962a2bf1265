//! Recovery slots: written last, on nodes that run the image and have nothing else to do.

use evenkeel_crds::node_plan::NodePlanStatus;
use jiff::Timestamp;

use super::{Action, Decision};
use crate::{
    policy::Policy,
    report::{NodeState, RecoverySlots},
    schedule::Opening,
    snapshot::Snapshot,
};

/// Orders it for as many nodes as may pull and write at once. It takes nothing out of service, and is staging in every other
/// way.
pub fn hand_out(policy: &Policy, snapshot: &Snapshot, now: Timestamp, decision: &mut Decision) {
    let Some(image) = &policy.recovery_image else { return };
    let mut slots = RecoverySlots::default();
    let mut untold = Vec::new();
    for (name, node) in &snapshot.nodes {
        let settled = decision.report.nodes.get(name) == Some(&NodeState::Updated);
        let Some(plan) = node.plan.as_ref().filter(|_| settled) else { continue };
        if holds(&plan.status, image) {
            continue;
        }
        if plan.spec.recovery_image.as_ref() != Some(image) {
            untold.push(name);
            continue;
        }
        match plan.status.recovery.as_ref().and_then(|recovery| recovery.error.as_ref()) {
            Some(error) => {
                slots.failed += 1;
                slots.first.get_or_insert_with(|| (name.clone(), error.message.clone()));
            }
            None => slots.writing += usize::from(node.ready),
        }
    }
    slots.waiting = untold.len();
    let report = &decision.report;
    let held = report.stopped.is_some() || report.paused.is_some() || policy.dry_run;
    let open = matches!(policy.staging_schedule.at(now), Opening::Open(_));
    let free = if held || !open { 0 } else { policy.max_staging.saturating_sub(slots.writing) };
    for name in untold.into_iter().take(free) {
        (slots.waiting, slots.writing) = (slots.waiting - 1, slots.writing + 1);
        decision.actions.push((name.clone(), Action::OrderRecovery { image: image.clone() }));
    }
    decision.report.recovery = slots;
}

fn holds(status: &NodePlanStatus, image: &str) -> bool {
    let digest = status.recovery.as_ref().and_then(|recovery| recovery.digest.as_deref());
    digest.is_some() && digest == image.rsplit_once('@').map(|(_, digest)| digest)
}
