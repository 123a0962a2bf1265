//! A node on its way out of service: cordon, drain, what is waited for, the approval to reboot.

use evenkeel_crds::{
    drain::DrainTimeout,
    health_gate::GateTime,
    hook::HookTime,
    node_plan::{Disruption, Phase, RollbackCause},
};
use jiff::{SignedDuration, Timestamp};

use super::{Action, Decision, flight::revert};
use crate::{
    drain::{self, DrainSeen},
    gates,
    hooks::{self, Step},
    policy::Policy,
    report::NodeState,
    snapshot::NodeSeen,
};

/// The next step of a node that is to reboot.
pub fn leave_service(
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
    if !out_of_service(policy, name, node, record, now, decision)
        || wait_for_gates(policy, name, node, record, now, decision)
        || wait_for_delay(policy, name, record, now, decision)
    {
        return;
    }
    let deadline = now + SignedDuration::from_secs(policy.reboot.deadline_seconds);
    decision.act(name, NodeState::Rebooting, Action::ApproveReboot { deadline });
}

/// Cordon and drain, with their hooks. True once all is done.
pub fn out_of_service(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    // Under our cordon they are done.
    let before = !policy.cordon || !node.unschedulable || record.found_cordoned;
    if before && wait_for_hooks(policy, name, node, HookTime::BeforeCordon, now, decision) {
        return false;
    }
    if policy.cordon && !node.unschedulable {
        decision.act(name, NodeState::Starting, Action::Cordon);
        return false;
    }
    // Once it was seen to be done, pods that come all the same, such as for a taint that they tolerate, are the guests
    // of a node that reboots.
    if policy.drain.enabled && record.drained_at.is_none() && node.drain != DrainSeen::Done {
        drain(policy, name, node, record, now, decision);
        return false;
    }
    if pauses(policy) && record.drained_at.is_none() {
        decision.act(name, NodeState::Starting, Action::MarkDrained(now));
        return false;
    }
    !wait_for_hooks(policy, name, node, HookTime::AfterDrain, now, decision)
}

/// Whether anything is waited for between the drain and the reboot: then it is written down when the drain was done.
fn pauses(policy: &Policy) -> bool {
    policy.reboot.delay_seconds > 0
        || policy.hooks.iter().any(|hook| hook.when == HookTime::AfterDrain)
        || policy.gates.iter().any(|gate| gate.when.contains(&GateTime::During))
}

fn drain(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) {
    let end = drain::deadline(&policy.drain, record);
    let overdue = now >= end;
    let (pods, blocked_by) = match &node.drain {
        DrainSeen::Remaining { pods, blocked_by } => (*pods, blocked_by.clone()),
        _ => (0, None),
    };
    let action = match policy.drain.on_timeout {
        DrainTimeout::UncordonAndFail if overdue => {
            let by = blocked_by.map_or_else(String::new, |by| format!(", blocked by {by}"));
            let seconds = policy.drain.timeout_seconds;
            let message = format!("the drain did not end in {seconds} s, pods left: {pods}{by}");
            return revert(name, RollbackCause::ClusterGate, message, now, decision);
        }
        DrainTimeout::Force if overdue => Action::ForceOut,
        _ => Action::Evict,
    };
    if !overdue {
        decision.wake(end);
    }
    decision.act(name, NodeState::Draining { pods, blocked_by, overdue }, action);
}

/// True if the node has to wait for a hook of this step.
fn wait_for_hooks(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    when: HookTime,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    let step = hooks::step(policy, node, when);
    let failed = match &step {
        Step::Revert(_) => true,
        Step::Wait { until, .. } => until.is_some_and(|until| now >= until),
        Step::Done | Step::Run(_) => false,
    };
    if failed && node.disruption().is_some_and(|record| record.going_back) {
        // It is on its way back already.
        return false;
    }
    match step {
        Step::Done => return false,
        Step::Run(hook) => {
            decision.act(name, NodeState::Halted(format!("hook {hook}")), Action::RunHook(hook));
        }
        Step::Wait { why, until: Some(until) } if now >= until => {
            revert(name, RollbackCause::ClusterGate, format!("{why}, and its time is over"), now, decision);
        }
        Step::Wait { why, until } => {
            if let Some(until) = until {
                decision.wake(until);
            }
            decision.say(name, NodeState::Halted(why));
        }
        Step::Revert(why) => revert(name, RollbackCause::ClusterGate, why, now, decision),
    }
    true
}

/// True if the node has to wait for a gate, or is taken back because its time is over.
fn wait_for_gates(
    policy: &Policy,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    let Some(unmet) = gates::unmet(policy, node, record, GateTime::During, now) else { return false };
    if now >= unmet.until {
        let message = format!("{}; its time was over at {}", unmet.why, unmet.until);
        revert(name, RollbackCause::ClusterGate, message, now, decision);
    } else {
        decision.wake(unmet.until.min(unmet.again));
        decision.say(name, NodeState::Halted(unmet.why));
    }
    true
}

fn wait_for_delay(
    policy: &Policy,
    name: &str,
    record: &Disruption,
    now: Timestamp,
    decision: &mut Decision,
) -> bool {
    let Some(drained) = record.drained_at else { return false };
    let end = drained.0 + SignedDuration::from_secs(policy.reboot.delay_seconds);
    if now >= end {
        return false;
    }
    decision.wake(end);
    decision.say(name, NodeState::Halted(format!("reboot.delaySeconds are over at {end}")));
    true
}
