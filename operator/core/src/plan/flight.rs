//! A node whose turn began: it is finished, or brought back, before anything else.

use evenkeel_crds::{
    condition::Time,
    hook::HookTime,
    node_plan::{Disruption, LastTurn, Phase, Revert, RollbackCause, Target, TurnOutcome},
};
use jiff::Timestamp;

use super::{Action, Decision, failure, fleet::Fleet, leave, return_trip, trial};
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
    let told =
        plan.spec.target > Some(Target::Staged) && !(record.going_back && node.phase() == Phase::Committed);
    if told {
        let at = failure::lost_at(policy, record, plan.spec.target);
        if policy.deleting && now >= at {
            return give_back(policy, name, node, record, now, decision);
        }
        if now < at {
            decision.wake(at);
        }
    }
    if matches!(node.phase(), Phase::RolledBack | Phase::Failed) {
        return finish(policy, name, node, record, now, decision);
    }
    if let Some(why) = failure::lost(policy, node, now) {
        decision.say(name, NodeState::Lost(why));
    }
    if record.going_back {
        return return_trip::advance(policy, fleet, name, node, record, now, decision);
    }
    match plan.spec.target {
        None | Some(Target::Staged) => {
            let dropped = policy.deleting
                || fleet.verdict.stopped.is_some()
                || !node.selected
                || node.claimed_by_other.is_some()
                || plan.spec.image != policy.image;
            if dropped {
                finish(policy, name, node, record, now, decision);
            } else {
                leave::leave_service(policy, name, node, record, now, decision);
            }
        }
        Some(Target::Booted) => trial::prove(policy, fleet, name, node, record, now, decision),
        Some(Target::Committed) if node.phase() == Phase::Committed => {
            finish(policy, name, node, record, now, decision);
        }
        Some(Target::Committed) => unless_lost(name, NodeState::Committing, decision),
        Some(Target::Reverted) => reverting(name, node, decision),
    }
}

/// That a node is lost is said instead of what it was told.
fn unless_lost(name: &str, state: NodeState, decision: &mut Decision) {
    if !decision.report.nodes.contains_key(name) {
        decision.say(name, state);
    }
}

/// Says that a node was told to go back.
pub fn reverting(name: &str, node: &NodeSeen, decision: &mut Decision) {
    let revert = node.plan.as_ref().and_then(|plan| plan.spec.revert.as_ref());
    let why = revert.map(|revert| revert.message.clone()).unwrap_or_default();
    unless_lost(name, NodeState::Reverting(why), decision);
}

/// Orders a node back.
pub fn revert(name: &str, cause: RollbackCause, message: String, now: Timestamp, decision: &mut Decision) {
    let state = NodeState::Overdue(message.clone());
    decision.act(name, state, Action::Revert { order: Revert { cause, message }, at: now });
}

fn our_cordon(policy: &Policy, node: &NodeSeen, record: &Disruption) -> bool {
    node.unschedulable && !record.found_cordoned && node.cordoned_by.as_deref() == Some(policy.name.as_str())
}

/// Gives the node back: our cordon is lifted, and only once that was seen the record goes.
pub fn finish(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) {
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
        None | Some(Step::Done | Step::Revert(_)) => give_back(policy, name, node, record, now, decision),
    }
}

fn give_back(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) {
    let our_cordon = our_cordon(policy, node, record);
    let action = if our_cordon { Action::Uncordon } else { Action::EndDisruption(ended(node, record, now)) };
    decision.act(name, NodeState::Finishing, action);
}

fn ended(node: &NodeSeen, record: &Disruption, now: Timestamp) -> LastTurn {
    let spec = node.plan.as_ref().map(|plan| &plan.spec);
    let outcome = match node.phase() {
        _ if record.going_back => TurnOutcome::Dropped,
        Phase::Committed => TurnOutcome::Updated,
        Phase::RolledBack | Phase::Failed => TurnOutcome::Failed,
        _ if spec.is_some_and(|spec| spec.target > Some(Target::Staged)) => TurnOutcome::Failed,
        _ => TurnOutcome::Dropped,
    };
    let plan_id = spec.and_then(|spec| spec.plan_id.clone()).unwrap_or_default();
    LastTurn { plan_id, since: record.since, until: Time(now), outcome }
}
