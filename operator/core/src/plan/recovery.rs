//! Recovery slots: written last, on nodes that run the image and have nothing else to do.

use evenkeel_crds::{
    cloud_config::digest_of,
    condition::Time,
    node_plan::{NodePlanStatus, RecoveryOrder},
};
use jiff::{SignedDuration, Timestamp};

use super::{Action, Decision};
use crate::{
    policy::Policy,
    report::{NodeState, RecoverySlots},
    schedule::Opening,
    snapshot::{NodeSeen, PlanSeen, Snapshot},
};

/// For so long a node that writes holds a place, whatever its agent says: a recovery image has some hundred MB.
const PLACE: SignedDuration = SignedDuration::from_hours(1);

/// Orders it for as many nodes as may pull and write at once. It takes nothing out of service, and is staging in every other
/// way.
pub fn hand_out(policy: &Policy, snapshot: &Snapshot, now: Timestamp, decision: &mut Decision) {
    let Some(image) = &policy.recovery_image else { return withdraw(snapshot, decision) };
    let order = || Some(RecoveryOrder { image: image.clone(), ordered_at: Time(now) });
    let mut slots = RecoverySlots::default();
    let (mut taken, mut untold, mut actions) = (0, Vec::new(), Vec::new());
    let held = is_held(policy, now, decision);
    for (name, node, plan) in settled(snapshot, decision) {
        if holds(&plan.status, image) {
            continue;
        }
        let told = plan.spec.recovery.as_ref();
        match told {
            Some(told) if told.image == *image && plan.spec.verification == policy.verification => {
                match failure(&plan.status, image) {
                    Some(why) => {
                        slots.failed += 1;
                        slots.first.get_or_insert_with(|| (name.clone(), why.to_owned()));
                        continue;
                    }
                    None => slots.writing += 1,
                }
            }
            // Its agent may be writing what was wanted before: that ends, and its place stays its own.
            Some(_) if !held => {
                slots.writing += 1;
                actions.push((name.clone(), Action::OrderRecovery(order())));
            }
            _ => untold.push(name),
        }
        taken += usize::from(told.is_some_and(|told| takes_place(node, told, now)));
    }
    let staging = decision.report.count(|state| matches!(state, NodeState::Staging | NodeState::Retrying(_)));
    let free = if held { 0 } else { policy.max_staging.saturating_sub(taken + staging) };
    slots.waiting = untold.len();
    for name in untold.into_iter().take(free) {
        (slots.waiting, slots.writing) = (slots.waiting - 1, slots.writing + 1);
        actions.push((name.clone(), Action::OrderRecovery(order())));
    }
    decision.actions.extend(actions);
    decision.report.recovery = slots;
}

/// Nothing is wanted of recovery slots any more.
fn withdraw(snapshot: &Snapshot, decision: &mut Decision) {
    let told = settled(snapshot, decision).filter(|(.., plan)| plan.spec.recovery.is_some());
    let actions: Vec<_> = told.map(|(name, ..)| (name.clone(), Action::OrderRecovery(None))).collect();
    decision.actions.extend(actions);
}

/// The nodes that run the image, with nothing else to be done.
fn settled<'a>(
    snapshot: &'a Snapshot,
    decision: &Decision,
) -> impl Iterator<Item = (&'a String, &'a NodeSeen, &'a PlanSeen)> {
    let updated = |name: &String| decision.report.nodes.get(name) == Some(&NodeState::Updated);
    let nodes = snapshot.nodes.iter().filter(move |(name, _)| updated(name));
    nodes.filter_map(|(name, node)| Some((name, node, node.plan.as_ref()?)))
}

/// Whether nothing may be begun now.
fn is_held(policy: &Policy, now: Timestamp, decision: &Decision) -> bool {
    let report = &decision.report;
    let open = matches!(policy.staging_schedule.at(now), Opening::Open(_));
    report.stopped.is_some() || report.paused.is_some() || policy.dry_run || !open
}

fn takes_place(node: &NodeSeen, told: &RecoveryOrder, now: Timestamp) -> bool {
    node.ready && now < told.ordered_at.0 + PLACE
}

/// Why it will not hold the image, whatever is waited for.
fn failure<'a>(status: &'a NodePlanStatus, image: &str) -> Option<&'a str> {
    let failed = status.recovery.as_ref()?.failed.as_ref()?;
    (failed.image == image && !failed.error.retryable).then_some(failed.error.message.as_str())
}

fn holds(status: &NodePlanStatus, image: &str) -> bool {
    let Some(recovery) = &status.recovery else { return false };
    let digest = digest_of(image);
    digest.is_some() && recovery.digest.as_deref() == digest && recovery.failed.is_none()
}
