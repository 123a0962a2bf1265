//! A node whose turn began: it is finished, or brought back, before anything else.

use evenkeel_crds::{
    hook::HookTime,
    node_plan::{Disruption, Phase, Revert, RollbackCause, Target},
};
use jiff::{SignedDuration, Timestamp};

use super::{Action, Decision, fleet::Fleet, leave, trial};
use crate::{
    hooks::{self, Step},
    policy::Policy,
    report::NodeState,
    snapshot::NodeSeen,
};

/// The next step of a node with a record of disruption.
pub fn advance(
    policy: &Policy,
    fleet: &Fleet,
    name: &str,
    node: &NodeSeen,
    now: Timestamp,
    decision: &mut Decision,
) {
    let (Some(plan), Some(record)) = (&node.plan, node.disruption()) else { return };
    if node.gone {
        return decision.act(name, NodeState::Released, Action::ReleasePlan);
    }
    if policy.deleting
        && let Some(at) = lost_at(policy, record)
    {
        if now >= at {
            return give_back(policy, name, node, record, decision);
        }
        decision.wake(at);
    }
    if matches!(node.phase(), Phase::RolledBack | Phase::Failed) {
        return finish(policy, name, node, record, decision);
    }
    match plan.spec.target {
        None | Some(Target::Staged) => {
            let dropped = policy.deleting
                || fleet.stopped.is_some()
                || !node.selected
                || node.claimed_by_other.is_some()
                || plan.spec.image != policy.image;
            if dropped {
                finish(policy, name, node, record, decision);
            } else {
                leave::leave_service(policy, name, node, record, now, decision);
            }
        }
        Some(Target::Booted) => trial::prove(policy, name, node, record, now, decision),
        Some(Target::Committed) if node.phase() == Phase::Committed => {
            finish(policy, name, node, record, decision);
        }
        Some(Target::Committed) => decision.say(name, NodeState::Committing),
        Some(Target::Reverted) => {
            let why = plan.spec.revert.as_ref().map(|revert| revert.message.clone()).unwrap_or_default();
            decision.say(name, NodeState::Reverting(why));
        }
    }
}

/// Orders a node back.
pub fn revert(name: &str, cause: RollbackCause, message: String, decision: &mut Decision) {
    let state = NodeState::Overdue(message.clone());
    decision.act(name, state, Action::Revert(Revert { cause, message }));
}

fn our_cordon(policy: &Policy, node: &NodeSeen, record: &Disruption) -> bool {
    node.unschedulable && !record.found_cordoned && node.cordoned_by.as_deref() == Some(policy.name.as_str())
}

/// Gives the node back: our cordon is lifted, and only once that was seen the record goes.
fn finish(policy: &Policy, name: &str, node: &NodeSeen, record: &Disruption, decision: &mut Decision) {
    if our_cordon(policy, node, record)
        && !node.ready
        && matches!(node.phase(), Phase::RolledBack | Phase::Failed | Phase::Committed)
    {
        return decision.say(name, NodeState::Unhealthy("the node is not Ready after its reboot".into()));
    }
    let when = match node.phase() {
        Phase::Committed => Some(HookTime::AfterCommit),
        Phase::RolledBack | Phase::Failed => Some(HookTime::AfterRevert),
        _ => None,
    };
    // Whoever deletes the image object waits for no hook.
    match when.filter(|_| !policy.deleting).map(|when| hooks::step(policy, node, when)) {
        Some(Step::Run(hook)) => {
            decision.act(name, NodeState::Halted(format!("hook {hook}")), Action::RunHook(hook));
        }
        Some(Step::Wait { why, .. }) => decision.say(name, NodeState::Halted(why)),
        // There is nothing that could be reverted: the definition of the API refuses such hooks.
        None | Some(Step::Done | Step::Revert(_)) => give_back(policy, name, node, record, decision),
    }
}

/// When a node that was told to reboot has had the time to do so and to come back once more: whoever deletes the
/// image object does not wait for a machine that cannot be reached. It goes back by itself when it is not committed.
fn lost_at(policy: &Policy, record: &Disruption) -> Option<Timestamp> {
    let way_back = SignedDuration::from_secs(policy.reboot.deadline_seconds);
    Some(record.deadline?.0 + way_back)
}

fn give_back(policy: &Policy, name: &str, node: &NodeSeen, record: &Disruption, decision: &mut Decision) {
    let our_cordon = our_cordon(policy, node, record);
    let action = if our_cordon { Action::Uncordon } else { Action::EndDisruption };
    decision.act(name, NodeState::Finishing, action);
}
