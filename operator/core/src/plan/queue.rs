//! Nodes whose turn has not begun: what they are, who stages next, who starts next.

use std::collections::BTreeSet;

use evenkeel_crds::{
    condition::Time,
    managed_os_image::Order,
    node_plan::{Disruption, NodePlanSpec, Phase, Target},
};
use jiff::Timestamp;

use super::{
    Action, Decision,
    fleet::{Fleet, failure, updated},
};
use crate::{
    gates::{self, Leave},
    policy::Policy,
    report::{Hold, NodeState},
    snapshot::{NodeSeen, PlanSeen, Snapshot},
};

/// Everything about a node that needs no turn. Nodes that it leaves out of the report wait for [`hand_out`].
pub fn settle(policy: &Policy, name: &str, node: &NodeSeen, decision: &mut Decision) {
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
        return decision.act(name, NodeState::AgentSilent, Action::EnsurePlan);
    };
    if plan.status.host.is_none() {
        return decision.say(name, NodeState::AgentSilent);
    }
    if node.unmanageable() {
        return decision.say(name, NodeState::Unmanageable);
    }
    if let Some(why) = failure(policy, node) {
        return decision.say(name, NodeState::Failed(why));
    }
    if updated(policy, node) {
        decision.say(name, NodeState::Updated);
    }
}

/// Hands out turns to start and to stage, in order.
pub fn hand_out(
    policy: &Policy,
    fleet: &Fleet,
    snapshot: &Snapshot,
    now: Timestamp,
    decision: &mut Decision,
) {
    let mut waiting: Vec<(&String, &NodeSeen)> =
        snapshot.nodes.iter().filter(|(name, _)| !decision.report.nodes.contains_key(*name)).collect();
    waiting.sort_by_key(|(name, node)| {
        let first = node.control_plane == (policy.order == Order::ControlPlaneFirst);
        (!first, (*name).clone())
    });
    let mut unavailable = fleet.unavailable.clone();
    let Some(image) = &policy.image else {
        for (name, _) in waiting {
            decision.say(name, NodeState::WaitsToStage(Hold::Unresolved));
        }
        return;
    };
    let ordered = |node: &NodeSeen| ordered_attempt(policy, node).is_some();
    let mut staging =
        waiting.iter().filter(|(_, node)| ordered(node) && node.phase() != Phase::Staged).count();
    let staged = || waiting.iter().filter(|(_, node)| ordered(node) && node.phase() == Phase::Staged);
    // One that may not leave service does not prove the image: then another one has to.
    let kept = staged().filter(|(_, node)| gates::is_held(policy, node, now)).count().min(HELD_MAX);
    let staged = staged().count() - kept;
    let mut held = 0;
    let in_flight = snapshot.nodes.values().filter(|node| node.disruption().is_some()).count();
    let mut ahead = staging + staged + in_flight;
    for (name, node) in waiting {
        let Some(attempt) = ordered_attempt(policy, node) else {
            if let Some(hold) = hold_staging(policy, fleet, staging, ahead, decision) {
                decision.say(name, NodeState::WaitsToStage(hold));
                continue;
            }
            staging += 1;
            ahead += 1;
            let plan_id = policy.plan_id(next_attempt(policy, node));
            decision.act(name, NodeState::Staging, Action::OrderStage { plan_id, image: image.clone() });
            continue;
        };
        if !as_ordered(policy, node) && fleet.rejected.is_none() {
            let action = Action::OrderStage { plan_id: policy.plan_id(attempt), image: image.clone() };
            decision.act(name, NodeState::staging(node), action);
        } else if node.phase() != Phase::Staged {
            decision.say(name, NodeState::staging(node));
        } else if let Some(hold) = hold_start(fleet, snapshot, name, node, &unavailable, decision) {
            decision.say(name, NodeState::WaitsToStart(hold));
        } else if let Some(hold) = hold_departure(policy, name, node, now, &mut held, decision) {
            if decision.report.asks.contains(name) {
                // Its place is kept until the answer is there.
                unavailable.insert(name.clone());
            }
            decision.say(name, NodeState::WaitsToStart(hold));
        } else {
            unavailable.insert(name.clone());
            let record = Disruption {
                since: Time(now),
                found_cordoned: node.unschedulable,
                boot_id_before: node.boot_id.clone(),
                drained_at: None,
                deadline: None,
                healthy_since: None,
                attempt,
            };
            decision.act(name, NodeState::Starting, Action::BeginDisruption(record));
        }
    }
}

/// The attempt with this image that the node was ordered to stage. An order that went further was used up.
fn ordered_attempt(policy: &Policy, node: &NodeSeen) -> Option<i32> {
    let spec = &node.plan.as_ref()?.spec;
    attempt_in(policy, spec).filter(|_| spec.target == Some(Target::Staged))
}

fn attempt_in(policy: &Policy, spec: &NodePlanSpec) -> Option<i32> {
    if spec.image != policy.image {
        return None;
    }
    policy.attempt_of(spec.plan_id.as_ref()?)
}

/// The attempt to order. An order never moves backwards, and an agent that ended an attempt takes the same identity for
/// the same order: after an attempt that was used up comes the next one. That is so when somebody deleted the plan, which
/// is how a person says "try again", and when a machine lost what it remembered.
fn next_attempt(policy: &Policy, node: &NodeSeen) -> i32 {
    let Some(PlanSeen { spec, status }) = &node.plan else { return 1 };
    let known = status.plan_id.as_deref().and_then(|plan_id| policy.attempt_of(plan_id));
    let ended = known.filter(|_| matches!(status.phase, Phase::RolledBack | Phase::Failed));
    let used_up = attempt_in(policy, spec).filter(|_| spec.target > Some(Target::Staged));
    let next = |attempt: i32| attempt.saturating_add(1);
    ended.max(used_up).map_or_else(|| known.unwrap_or(1), next)
}

/// Whether the settings of the order are those that the image object has now.
fn as_ordered(policy: &Policy, node: &NodeSeen) -> bool {
    node.plan.as_ref().is_some_and(|plan| {
        plan.spec.pull == policy.pull
            && plan.spec.verification == policy.verification
            && plan.spec.commit_deadline_seconds == Some(policy.reboot.commit_deadline_seconds)
    })
}

fn stopped_or_paused(fleet: &Fleet, decision: &Decision) -> Option<Hold> {
    let stopped = fleet.rejected.as_ref().map(|rejected| Hold::Stopped(rejected.node.clone()));
    stopped.or_else(|| decision.report.paused.clone().map(Hold::Paused))
}

fn hold_staging(
    policy: &Policy,
    fleet: &Fleet,
    staging: usize,
    ahead: usize,
    decision: &Decision,
) -> Option<Hold> {
    stopped_or_paused(fleet, decision)
        .or_else(|| (!fleet.proven && ahead >= fleet.budget).then_some(Hold::Unproven))
        .or_else(|| (staging >= policy.max_staging).then_some(Hold::MaxStaging))
}

/// Nodes that may not leave service for which others are tried in their place. What holds back more than these is most
/// likely to hold back all.
const HELD_MAX: usize = 16;

/// What is in the way of a node whose turn it would be.
fn hold_departure(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    now: Timestamp,
    held: &mut usize,
    decision: &mut Decision,
) -> Option<Hold> {
    if *held >= HELD_MAX {
        return Some(Hold::Behind);
    }
    match gates::leave(policy, node, now) {
        Leave::Now => None,
        Leave::Ask(held_by) => {
            decision.report.asks.insert(name.to_owned());
            Some(held_by.map_or(Hold::Asking, Hold::Departure))
        }
        Leave::Held { by, again } => {
            *held += 1;
            decision.wake(again);
            Some(Hold::Departure(by))
        }
    }
}

fn hold_start(
    fleet: &Fleet,
    snapshot: &Snapshot,
    name: &str,
    node: &NodeSeen,
    unavailable: &BTreeSet<String>,
    decision: &Decision,
) -> Option<Hold> {
    if let Some(hold) = stopped_or_paused(fleet, decision) {
        return Some(hold);
    }
    if !node.ready {
        return Some(Hold::NotReady);
    }
    let others = unavailable.iter().filter(|other| *other != name);
    if others.clone().count() >= fleet.budget {
        return Some(Hold::Budget { unavailable: unavailable.len(), budget: fleet.budget });
    }
    let down = snapshot.other_controllers_down.iter();
    let peer = others.clone().filter(|other| snapshot.nodes[*other].control_plane).chain(down).next();
    peer.filter(|_| node.control_plane).map(|peer| Hold::ControlPlane(peer.clone()))
}
