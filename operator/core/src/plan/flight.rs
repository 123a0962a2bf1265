//! A node whose turn began: it is finished, or brought back, before anything else.

use evenkeel_crds::node_plan::{Disruption, Phase, Revert, RollbackCause, Target};
use jiff::{SignedDuration, Timestamp};

use super::{Action, Decision, fleet::Fleet};
use crate::{
    policy::Policy,
    report::NodeState,
    snapshot::{DrainSeen, NodeSeen},
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
                leave_service(policy, name, node, record, now, decision);
            }
        }
        Some(Target::Booted) => prove(policy, name, node, record, now, decision),
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

/// Cordon, drain, approve.
fn leave_service(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) {
    if node.phase() != Phase::Staged {
        return decision.say(name, NodeState::staging(node));
    }
    if policy.cordon && !node.unschedulable {
        return decision.act(name, NodeState::Starting, Action::Cordon);
    }
    if policy.drain.enabled && node.drain != DrainSeen::Done {
        let end = record.since.0 + SignedDuration::from_secs(policy.drain.timeout_seconds);
        let (pods, blocked_by) = match &node.drain {
            DrainSeen::Remaining { pods, blocked_by } => (*pods, blocked_by.clone()),
            _ => (0, None),
        };
        if now >= end {
            let by = blocked_by.map_or_else(String::new, |by| format!(", blocked by {by}"));
            let seconds = policy.drain.timeout_seconds;
            let message = format!("the drain did not end in {seconds} s, pods left: {pods}{by}");
            return revert(name, RollbackCause::ClusterGate, message, decision);
        }
        decision.wake(end);
        return decision.act(name, NodeState::Draining { pods, blocked_by }, Action::Evict);
    }
    let deadline = now + SignedDuration::from_secs(policy.reboot.deadline_seconds);
    decision.act(name, NodeState::Rebooting, Action::ApproveReboot { deadline });
}

/// From the approval to the order to keep the image, or to go back.
fn prove(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) {
    let deadline = record.deadline.map_or(now, |deadline| deadline.0);
    if node.phase() == Phase::Committed {
        return decision.act(name, NodeState::Committing, Action::Commit);
    }
    if node.phase() != Phase::Trial {
        if now >= deadline {
            let said =
                node.trouble().map_or_else(String::new, |trouble| format!("; its agent says: {trouble}"));
            let message = format!("the node did not come up on the new image by {deadline}{said}");
            return revert(name, RollbackCause::ClusterGate, message, decision);
        }
        decision.wake(deadline);
        return decision.say(name, NodeState::Rebooting);
    }
    match (unhealthy(policy, node, record), record.healthy_since) {
        (None, None) => decision.act(name, NodeState::Soaking, Action::MarkHealthy(Some(now))),
        (None, Some(since)) if now >= since.0 + policy.soak => {
            decision.act(name, NodeState::Committing, Action::Commit);
        }
        (None, Some(since)) => {
            decision.wake(since.0 + policy.soak);
            decision.say(name, NodeState::Soaking);
        }
        (Some(why), _) if now >= deadline => {
            let message = format!("not healthy by {deadline}: {why}");
            revert(name, RollbackCause::ClusterGate, message, decision);
        }
        (Some(why), Some(_)) => decision.act(name, NodeState::Unhealthy(why), Action::MarkHealthy(None)),
        (Some(why), None) => {
            decision.wake(deadline);
            decision.say(name, NodeState::Unhealthy(why));
        }
    }
}

/// What keeps a node on trial from being healthy, as the cluster sees it.
fn unhealthy(policy: &Policy, node: &NodeSeen, record: &Disruption) -> Option<String> {
    let plan = node.plan.as_ref()?;
    let order = plan.spec.order()?;
    let Some(booted) = &plan.status.booted else { return Some("the agent does not say what runs".into()) };
    if booted.digest != order.digest() {
        return Some(format!("it runs {}", booted.digest));
    }
    if booted.boot_id == record.boot_id_before || node.boot_id != booted.boot_id {
        return Some("the kubelet has not reported the new boot yet".into());
    }
    if !node.ready {
        return Some("the node is not Ready".into());
    }
    if !booted.host_checks_passed {
        return Some("the host's own health checks have not passed yet".into());
    }
    policy.gates.iter().find_map(|gate| {
        let wanted = format!("{:?}", gate.node_condition.status);
        let seen = node.conditions.get(&gate.node_condition.r#type).map_or("absent", String::as_str);
        (seen != wanted).then(|| {
            format!("gate {}: condition {} is {seen}, not {wanted}", gate.name, gate.node_condition.r#type)
        })
    })
}

fn revert(name: &str, cause: RollbackCause, message: String, decision: &mut Decision) {
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
    give_back(policy, name, node, record, decision);
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
