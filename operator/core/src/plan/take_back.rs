//! Takes a rollout back: nodes that kept an image that failed on others leave it in turns of their own.

use evenkeel_crds::{
    node_plan::{SlotState, Target, TurnOutcome},
    rollout::FailureAction,
};
use jiff::Timestamp;

use super::{
    Action, Decision,
    budget::Budget,
    fleet::{Fleet, updated},
    order, turns,
};
use crate::{
    policy::Policy,
    report::{Hold, NodeState},
    snapshot::{NodeSeen, Snapshot},
};

/// Hands out turns to go back, when the failure policy says so.
pub fn hand_out(
    policy: &Policy,
    fleet: &Fleet,
    snapshot: &Snapshot,
    now: Timestamp,
    decision: &mut Decision,
) {
    if fleet.verdict.action != Some(FailureAction::RevertAll) {
        return;
    }
    let mut nodes: Vec<(&String, &NodeSeen)> =
        snapshot.nodes.iter().filter(|(_, node)| may_go_back(policy, node)).collect();
    if nodes.is_empty() {
        return;
    }
    order::sort(policy, snapshot, &mut nodes);
    let paused = decision.report.paused.clone().map(Hold::Paused).or(policy.dry_run.then_some(Hold::DryRun));
    let closed = paused.or_else(|| turns::window(policy, fleet, now, decision));
    let mut budget = Budget::of_reverts(policy, snapshot, now);
    for (name, node) in nodes {
        let held = closed.clone().or_else(|| budget.hold(name, node));
        if let Some(hold) = held {
            decision.say(name, NodeState::WaitsToGoBack(hold));
            continue;
        }
        budget.take(name, node);
        let attempt =
            node.plan.as_ref().and_then(|plan| policy.attempt_of(plan.spec.plan_id.as_ref()?)).unwrap_or(1);
        let record = turns::record(node, attempt, true, now);
        decision.act(name, NodeState::Starting, Action::BeginDisruption(record));
    }
}

/// Whether a turn of this rollout brought the node to the image, and there is a slot to go back to.
fn may_go_back(policy: &Policy, node: &NodeSeen) -> bool {
    let Some(plan) = node.plan.as_ref().filter(|_| node.ours() && node.disruption().is_none()) else {
        return false;
    };
    let turn = plan.spec.last_turn.as_ref();
    let brought = turn.is_some_and(|turn| {
        Some(&turn.plan_id) == plan.spec.plan_id.as_ref() && turn.outcome == TurnOutcome::Updated
    });
    let runs = plan.status.booted.as_ref().map(|booted| booted.slot.as_str());
    let fallback = plan
        .status
        .slots
        .iter()
        .any(|slot| slot.state == SlotState::Complete && Some(slot.name.as_str()) != runs);
    brought
        // What was applied without a reboot is gone back from in the same slot.
        && (fallback || plan.status.live)
        && updated(policy, node)
        && policy.is_ordered_by(&plan.spec)
        && plan.spec.target == Some(Target::Committed)
}
