//! A node on its way out of service: cordon, drain, what is waited for, the approval to reboot.

use evenkeel_crds::{drain::DrainTimeout, health_gate::GateTime, hook::HookTime, node_plan::Phase};
use jiff::{SignedDuration, Timestamp};

use super::{Action, Decision, trial, turn::Turn};
use crate::{
    drain::{self, DrainSeen},
    gates,
    hooks::{self, Step},
    policy::Policy,
    report::NodeState,
};

/// The next step of a node that is to reboot.
pub fn leave_service(turn: &Turn, decision: &mut Decision) {
    if turn.node.phase() != Phase::Staged {
        return turn.say(NodeState::staging(turn.node), decision);
    }
    if !is_ready_to_reboot(turn, decision) {
        return;
    }
    let deadline = turn.now + SignedDuration::from_secs(turn.policy.reboot.deadline_seconds);
    turn.act(trial::on_its_way(turn), Action::ApproveReboot { deadline }, decision);
}

/// All that comes before the reboot. True once it is done.
pub fn is_ready_to_reboot(turn: &Turn, decision: &mut Decision) -> bool {
    // A cloud-config without a reboot disturbs nobody.
    turn.record.live
        || out_of_service(turn, decision)
            && !wait_for_gates(turn, decision)
            && !wait_for_delay(turn, decision)
}

/// Cordon and drain, with their hooks. True once all is done.
pub fn out_of_service(turn: &Turn, decision: &mut Decision) -> bool {
    let Turn { policy, node, record, .. } = turn;
    // Under our cordon they are done.
    let before = !policy.cordon || !node.unschedulable || record.found_cordoned;
    if before && wait_for_hooks(turn, HookTime::BeforeCordon, decision) {
        return false;
    }
    if before && record.draining_since.is_none() && waits_before(policy) && policy.drain.enabled {
        turn.act(NodeState::Starting, Action::MarkDraining(turn.now), decision);
        return false;
    }
    if policy.cordon && !node.unschedulable {
        turn.act(NodeState::Starting, Action::Cordon, decision);
        return false;
    }
    // Once it was seen to be done, pods that come all the same, such as for a taint that they tolerate, are the guests
    // of a node that reboots.
    if policy.drain.enabled && record.drained_at.is_none() && node.drain != DrainSeen::Done {
        drain(turn, decision);
        return false;
    }
    if pauses(policy) && record.drained_at.is_none() {
        turn.act(NodeState::Starting, Action::MarkDrained(turn.now), decision);
        return false;
    }
    !wait_for_hooks(turn, HookTime::AfterDrain, decision)
}

/// Whether anything is waited for between the begin of the turn and the drain.
fn waits_before(policy: &Policy) -> bool {
    policy.hooks.iter().any(|hook| hook.when == HookTime::BeforeCordon)
}

/// Whether anything is waited for between the drain and the reboot: then it is written down when the drain was done.
fn pauses(policy: &Policy) -> bool {
    policy.reboot.delay_seconds > 0
        || policy.hooks.iter().any(|hook| hook.when == HookTime::AfterDrain)
        || policy.gates.iter().any(|gate| gate.when.contains(&GateTime::During))
}

fn drain(turn: &Turn, decision: &mut Decision) {
    let policy = turn.policy;
    let end = drain::deadline(&policy.drain, turn.record);
    let overdue = turn.now >= end;
    let (pods, blocked_by) = match &turn.node.drain {
        DrainSeen::Remaining { pods, blocked_by } => (*pods, blocked_by.clone()),
        _ => (0, None),
    };
    let action = match policy.drain.on_timeout {
        DrainTimeout::UncordonAndFail if overdue => {
            let by = blocked_by.map_or_else(String::new, |by| format!(", blocked by {by}"));
            let seconds = policy.drain.timeout_seconds;
            let message = format!("the drain did not end in {seconds} s, pods left: {pods}{by}");
            return turn.revert(message, decision);
        }
        DrainTimeout::Force if overdue => Action::ForceOut,
        _ => Action::Evict,
    };
    if !overdue {
        decision.wake(end);
    }
    turn.act(NodeState::Draining { pods, blocked_by, overdue }, action, decision);
}

/// True if the node has to wait for a hook of this step.
fn wait_for_hooks(turn: &Turn, when: HookTime, decision: &mut Decision) -> bool {
    let step = hooks::step(turn.policy, turn.node, when);
    let is_over = |until: Timestamp| turn.now >= until;
    let failed = match &step {
        Step::Revert(_) => true,
        Step::Wait { until, .. } => until.is_some_and(is_over),
        Step::Done | Step::Run(_) => false,
    };
    if failed && turn.record.going_back {
        // It is on its way back already.
        return false;
    }
    match step {
        Step::Done => return false,
        Step::Run(hook) => {
            turn.act(NodeState::Halted(format!("hook {hook}")), Action::RunHook(hook), decision);
        }
        Step::Wait { why, until: Some(until) } if is_over(until) => {
            turn.revert(format!("{why}, and its time is over"), decision);
        }
        Step::Wait { why, until } => {
            if let Some(until) = until {
                decision.wake(until);
            }
            turn.say(NodeState::Halted(why), decision);
        }
        Step::Revert(why) => turn.revert(why, decision),
    }
    true
}

/// True if the node has to wait for a gate, or is taken back because its time is over.
fn wait_for_gates(turn: &Turn, decision: &mut Decision) -> bool {
    let unmet = gates::unmet(turn.policy, turn.node, turn.record, GateTime::During, turn.now);
    let Some(unmet) = unmet else { return false };
    if let Some(until) = unmet.until.filter(|until| turn.now >= *until) {
        turn.revert(format!("{}; its time was over at {until}", unmet.why), decision);
    } else {
        decision.wake(unmet.until.map_or(unmet.again, |until| until.min(unmet.again)));
        turn.say(NodeState::Halted(unmet.why), decision);
    }
    true
}

fn wait_for_delay(turn: &Turn, decision: &mut Decision) -> bool {
    let Some(drained) = turn.record.drained_at else { return false };
    let end = drained.0 + SignedDuration::from_secs(turn.policy.reboot.delay_seconds);
    if turn.now >= end {
        return false;
    }
    decision.wake(end);
    turn.say(NodeState::Halted(format!("reboot.delaySeconds are over at {end}")), decision);
    true
}
