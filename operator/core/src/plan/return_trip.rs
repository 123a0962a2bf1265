//! A turn in which a node that kept the image leaves it, because the rollout is taken back.

use evenkeel_crds::{
    drain::DrainTimeout,
    node_plan::{Disruption, Phase, Revert, RollbackCause, Target},
    rollout::FailureAction,
};
use jiff::Timestamp;

use super::{
    Action, Decision,
    fleet::Fleet,
    flight::{finish, reverting},
    leave::out_of_service,
};
use crate::{
    drain::{self, DrainSeen},
    policy::Policy,
    report::NodeState,
    snapshot::NodeSeen,
};

/// The next step of a node that goes back. No gate keeps it where it is.
pub fn advance(
    policy: &Policy,
    fleet: &Fleet,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) {
    let Some(plan) = &node.plan else { return };
    let cannot = plan.status.error.as_ref().is_some_and(|error| !error.retryable);
    let kept = node.phase() == Phase::Committed;
    if plan.spec.target == Some(Target::Reverted) {
        // An agent that has no other slot says so, and stays.
        return if kept && cannot {
            finish(policy, name, node, record, now, decision);
        } else {
            reverting(name, node, decision);
        };
    }
    let dropped = policy.deleting
        || !node.ours()
        || plan.spec.image != policy.image
        || fleet.verdict.action != Some(FailureAction::RevertAll);
    if dropped || !kept || is_given_up(policy, node, record, now) {
        return finish(policy, name, node, record, now, decision);
    }
    if out_of_service(policy, name, node, record, now, decision) {
        let message = taken_back(fleet);
        let state = NodeState::Reverting(message.clone());
        let order = Revert { cause: RollbackCause::Rollout, message };
        decision.act(name, state, Action::Revert { order, at: now });
    }
}

/// Whether the drain took too long. The node runs what it ran: nothing is wrong with it, and it stays. That holds without
/// the cordon too, or else the node would be cordoned again once it is lifted.
fn is_given_up(policy: &Policy, node: &NodeSeen, record: &Disruption, now: Timestamp) -> bool {
    policy.drain.enabled
        && policy.drain.on_timeout == DrainTimeout::UncordonAndFail
        && record.drained_at.is_none()
        && node.drain != DrainSeen::Done
        && now >= drain::deadline(&policy.drain, record)
}

/// Why nodes go back, for people.
pub fn taken_back(fleet: &Fleet) -> String {
    let node = fleet.verdict.rejected.as_ref().map_or("other nodes", |rejected| rejected.node.as_str());
    format!("the image failed on {node}, and the failure policy takes its rollout back")
}
