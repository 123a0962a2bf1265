//! A node on trial: from the approval to reboot to the order to keep the image, or to go back.

use evenkeel_crds::{
    health_gate::GateTime,
    hook::HookTime,
    node_plan::{Phase, RollbackCause},
    rollout::FailureAction,
};
use jiff::Timestamp;

use super::{Action, Decision, return_trip::taken_back, turn::Turn};
use crate::{
    gates::{self, Unmet},
    hooks::{self, Step},
    report::NodeState,
};

/// From the approval to the order to keep the image, or to go back.
pub fn prove(turn: &Turn, decision: &mut Decision) {
    let Turn { policy, fleet, node, record, now, .. } = *turn;
    let deadline = record.deadline.map_or(now, |deadline| deadline.0);
    if node.phase() == Phase::Committed {
        return turn.act(NodeState::Committing, Action::Commit, decision);
    }
    if matches!(fleet.verdict.action, Some(FailureAction::RevertFailed | FailureAction::RevertAll))
        && policy.is_ordered_by(&turn.plan.spec)
    {
        return turn.revert_for(RollbackCause::Rollout, taken_back(fleet), decision);
    }
    if node.phase() != Phase::Trial {
        if now >= deadline {
            let said =
                node.trouble().map_or_else(String::new, |trouble| format!("; its agent says: {trouble}"));
            let what = if record.live {
                "did not apply its cloud-config"
            } else {
                "did not come up on the new image"
            };
            let message = format!("the node {what} by {deadline}{said}");
            return turn.revert(message, decision);
        }
        decision.wake(deadline);
        if record.healthy_since.is_some() {
            // A boot took away what was applied without one: it proves itself anew.
            return turn.act(on_its_way(turn), Action::MarkHealthy(None), decision);
        }
        return turn.say(on_its_way(turn), decision);
    }
    match health(turn, deadline) {
        Health::Good => soak(turn, decision),
        Health::Run(hook) => {
            turn.act(NodeState::Halted(format!("hook {hook}")), Action::RunHook(hook), decision);
        }
        Health::Failed(why) => turn.revert(why, decision),
        // The machine's guard bounds how long that can be.
        Health::NotKnown { why, again } => {
            decision.wake(again);
            turn.say(NodeState::Unhealthy(why), decision);
        }
        Health::NotYet { why, until, .. } if now >= until => {
            turn.revert(format!("not healthy by {until}: {why}"), decision);
        }
        Health::NotYet { why, .. } if record.healthy_since.is_some() => {
            turn.act(NodeState::Unhealthy(why), Action::MarkHealthy(None), decision);
        }
        Health::NotYet { why, until, again } => {
            decision.wake(again.map_or(until, |again| again.min(until)));
            turn.say(NodeState::Unhealthy(why), decision);
        }
    }
}

/// A healthy node stays so for the soak time before the image is kept.
fn soak(turn: &Turn, decision: &mut Decision) {
    let Turn { policy, now, .. } = *turn;
    match turn.record.healthy_since {
        // Nothing has to be remembered where nothing is waited for.
        None if policy.soak.is_zero() => turn.act(NodeState::Committing, Action::Commit, decision),
        None => turn.act(NodeState::Soaking, Action::MarkHealthy(Some(now)), decision),
        Some(since) if now >= since.0 + policy.soak => {
            turn.act(NodeState::Committing, Action::Commit, decision);
        }
        Some(since) => {
            let again = gates::interval(policy, GateTime::After).map(|interval| now + interval);
            let end = since.0 + policy.soak;
            decision.wake(again.map_or(end, |again| again.min(end)));
            turn.say(NodeState::Soaking, decision);
        }
    }
}

/// Where a node is that was told to go on trial.
pub fn on_its_way(turn: &Turn) -> NodeState {
    if turn.record.live { NodeState::Applying } else { NodeState::Rebooting }
}

/// How a node on trial is, as the cluster sees it.
enum Health {
    Good,
    /// A hook has to be run first.
    Run(String),
    /// It will not be any better.
    Failed(String),
    /// Nobody has asked yet.
    NotKnown {
        why: String,
        /// When it is to be looked at again.
        again: Timestamp,
    },
    NotYet {
        why: String,
        /// When there was time enough.
        until: Timestamp,
        /// When it is to be looked at again, even if nothing is seen to change.
        again: Option<Timestamp>,
    },
}

/// First the node itself, then its hooks, then the cluster: each needs the one before.
fn health(turn: &Turn, deadline: Timestamp) -> Health {
    let Turn { policy, node, record, now, .. } = *turn;
    if let Some(why) = unhealthy(turn) {
        return Health::NotYet { why, until: deadline, again: None };
    }
    match hooks::step(policy, node, HookTime::AfterReboot) {
        Step::Done => {}
        Step::Run(hook) => return Health::Run(hook),
        Step::Revert(why) => return Health::Failed(why),
        Step::Wait { why, until } => {
            let until = until.map_or(deadline, |until| until.max(deadline));
            return Health::NotYet { why, until, again: None };
        }
    }
    match gates::unmet(policy, node, record, GateTime::After, now) {
        None => Health::Good,
        Some(Unmet { why, until: None, again }) => Health::NotKnown { why, again },
        Some(Unmet { why, until: Some(until), again }) => Health::NotYet { why, until, again: Some(again) },
    }
}

/// What keeps the node itself from being healthy.
fn unhealthy(turn: &Turn) -> Option<String> {
    let Turn { node, plan, record, .. } = turn;
    let release = plan.spec.order()?.release();
    let Some(booted) = &plan.status.booted else { return Some("the agent does not say what runs".into()) };
    if booted.digest != release {
        return Some(format!("it runs {}", booted.digest));
    }
    // A boot takes what was applied without one back, and it is not the one that was asked for.
    if !record.live && booted.boot_id == record.boot_id_before || node.boot_id != booted.boot_id {
        return Some("the kubelet has not reported the new boot yet".into());
    }
    if !node.ready {
        return Some("the node is not Ready".into());
    }
    (!booted.host_checks_passed).then(|| "the host's own health checks have not passed yet".into())
}
