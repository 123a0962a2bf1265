//! Nodes whose turn has not begun: what they are, and which attempt they are at.

use evenkeel_crds::node_plan::{NodePlanSpec, Phase, Target};
use jiff::Timestamp;

use super::{
    Action, Decision,
    failure::{self, Failure},
    fleet::{Fleet, updated},
};
use crate::{
    channel::order::may_start_from,
    policy::Policy,
    report::NodeState,
    snapshot::{NodeSeen, PlanSeen},
};

/// Everything about a node that needs no turn. Nodes that it leaves out of the report wait for one.
pub fn settle(
    policy: &Policy,
    fleet: &Fleet,
    name: &str,
    node: &NodeSeen,
    now: Timestamp,
    decision: &mut Decision,
) {
    if node.cordoned_by.as_deref() == Some(policy.name.as_str()) {
        // The record is gone and the cordon is not: somebody deleted the plan in mid-flight.
        return decision.act(name, NodeState::Finishing, Action::Uncordon);
    }
    let not_ours = node.claimed_by_other.is_some() && node.plan.is_some();
    if policy.deleting || node.gone || !node.selected || not_ours {
        return if node.plan.is_some() {
            decision.act(name, NodeState::Released, Action::ReleasePlan);
        } else {
            decision.say(name, NodeState::Released);
        };
    }
    if let Some(other) = &node.claimed_by_other {
        return decision.say(name, NodeState::ClaimedByOther(other.clone()));
    }
    let Some(plan) = &node.plan else {
        // In a dry run too: what would be done is known only of nodes that have reported.
        return decision.act(name, NodeState::AgentSilent, Action::EnsurePlan);
    };
    if plan.status.host.is_none() {
        return decision.say(name, NodeState::AgentSilent);
    }
    if node.unmanageable() {
        return decision.say(name, NodeState::Unmanageable);
    }
    match fleet.failures.on(name) {
        Some(Failure { why, again: None, .. }) => return decision.say(name, NodeState::Failed(why.clone())),
        Some(Failure { why, again: Some(at), .. }) if now < *at => {
            decision.wake(*at);
            return decision.say(name, NodeState::TriesAgain { why: why.clone(), at: *at });
        }
        _ => {}
    }
    if fleet.verdict.stopped.is_some() && failure::taken_back(policy, node) {
        return decision.say(name, NodeState::TakenBack);
    }
    if updated(policy, node) {
        return decision.say(name, NodeState::Updated);
    }
    if let Some(below) = below_minimum(policy, node) {
        decision.say(name, NodeState::BelowMinimum(below));
    }
}

/// Why the node may not jump to the image from what it runs, if it may not.
pub fn below_minimum(policy: &Policy, node: &NodeSeen) -> Option<String> {
    let running = node.plan.as_ref()?.status.booted.as_ref().and_then(|booted| booted.version.as_deref());
    may_start_from(running, policy.minimum.as_ref()?).err().map(|below| below.to_string())
}

/// The attempt with this image that the node was ordered to stage. An order that went further was used up.
pub fn ordered_attempt(policy: &Policy, node: &NodeSeen) -> Option<i32> {
    let spec = &node.plan.as_ref()?.spec;
    attempt_in(policy, spec).filter(|_| spec.target == Some(Target::Staged))
}

fn attempt_in(policy: &Policy, spec: &NodePlanSpec) -> Option<i32> {
    if !policy.is_ordered_by(spec) {
        return None;
    }
    policy.attempt_of(spec.plan_id.as_ref()?)
}

/// The attempt to order. An order never moves backwards, and an agent that ended an attempt takes the same identity for
/// the same order: after an attempt that was used up comes the next one. That is so when somebody deleted the plan, which
/// is how a person says "try again", and when a machine lost what it remembered.
pub fn next_attempt(policy: &Policy, node: &NodeSeen) -> i32 {
    let Some(PlanSeen { spec, status }) = &node.plan else { return 1 };
    let known = status.plan_id.as_deref().and_then(|plan_id| policy.attempt_of(plan_id));
    let ended = known.filter(|_| matches!(status.phase, Phase::RolledBack | Phase::Failed));
    let used_up = attempt_in(policy, spec).filter(|_| spec.target > Some(Target::Staged));
    let next = |attempt: i32| attempt.saturating_add(1);
    ended.max(used_up).map_or_else(|| known.unwrap_or(1), next)
}

/// Whether the settings of the order are those that the image object has now.
pub fn as_ordered(policy: &Policy, node: &NodeSeen) -> bool {
    node.plan.as_ref().is_some_and(|plan| {
        plan.spec.pull == policy.pull
            && plan.spec.verification == policy.verification
            && plan.spec.live == policy.applies_live()
            && plan.spec.commit_deadline_seconds == Some(policy.reboot.commit_deadline_seconds)
    })
}
