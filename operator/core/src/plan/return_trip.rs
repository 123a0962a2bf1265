//! A turn in which a node that kept the image leaves it, because the rollout is taken back.

use evenkeel_crds::{
    drain::DrainTimeout,
    node_plan::{Phase, Revert, RollbackCause, Target},
    rollout::FailureAction,
};

use super::{Action, Decision, fleet::Fleet, flight::finish, leave::out_of_service, turn::Turn};
use crate::{
    drain::{self, DrainSeen},
    report::NodeState,
};

/// The next step of a node that goes back. No gate keeps it where it is.
pub fn advance(turn: &Turn, decision: &mut Decision) {
    let Turn { policy, fleet, node, plan, .. } = *turn;
    let cannot = plan.status.error.as_ref().is_some_and(|error| !error.retryable);
    let kept = node.phase() == Phase::Committed;
    if plan.spec.target == Some(Target::Reverted) {
        // An agent that has no other slot says so, and stays.
        return if kept && cannot { finish(turn, decision) } else { turn.say_reverting(decision) };
    }
    let dropped = policy.deleting
        || !node.ours()
        || !policy.is_ordered_by(&plan.spec)
        || fleet.verdict.action != Some(FailureAction::RevertAll);
    if dropped || !kept || is_given_up(turn) {
        return finish(turn, decision);
    }
    if turn.record.live || out_of_service(turn, decision) {
        let message = taken_back(fleet);
        let state = NodeState::Reverting(message.clone());
        let order = Revert { cause: RollbackCause::Rollout, message };
        turn.act(state, Action::Revert { order, at: turn.now }, decision);
    }
}

/// Whether the drain took too long. The node runs what it ran: nothing is wrong with it, and it stays. That holds without
/// the cordon too, or else the node would be cordoned again once it is lifted.
fn is_given_up(turn: &Turn) -> bool {
    let Turn { policy, node, record, now, .. } = *turn;
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
