//! A node on trial: from the approval to reboot to the order to keep the image, or to go back.

use evenkeel_crds::{
    health_gate::GateTime,
    hook::HookTime,
    node_plan::{Disruption, Phase, RollbackCause},
    rollout::FailureAction,
};
use jiff::Timestamp;

use super::{Action, Decision, fleet::Fleet, flight::revert, return_trip::taken_back};
use crate::{
    gates,
    hooks::{self, Step},
    policy::Policy,
    report::NodeState,
    snapshot::NodeSeen,
};

/// From the approval to the order to keep the image, or to go back.
pub fn prove(
    policy: &Policy,
    fleet: &Fleet,
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
    if matches!(fleet.verdict.action, Some(FailureAction::RevertFailed | FailureAction::RevertAll))
        && node.plan.as_ref().is_some_and(|plan| plan.spec.image == policy.image)
    {
        return revert(name, RollbackCause::Rollout, taken_back(fleet), now, decision);
    }
    if node.phase() != Phase::Trial {
        if now >= deadline {
            let said =
                node.trouble().map_or_else(String::new, |trouble| format!("; its agent says: {trouble}"));
            let message = format!("the node did not come up on the new image by {deadline}{said}");
            return revert(name, RollbackCause::ClusterGate, message, now, decision);
        }
        decision.wake(deadline);
        return decision.say(name, NodeState::Rebooting);
    }
    match health(policy, node, record, deadline, now) {
        Health::Good => soak(policy, name, record, now, decision),
        Health::Run(hook) => {
            decision.act(name, NodeState::Halted(format!("hook {hook}")), Action::RunHook(hook));
        }
        Health::Failed(why) => revert(name, RollbackCause::ClusterGate, why, now, decision),
        Health::NotYet { why, until, .. } if now >= until => {
            let message = format!("not healthy by {until}: {why}");
            revert(name, RollbackCause::ClusterGate, message, now, decision);
        }
        Health::NotYet { why, .. } if record.healthy_since.is_some() => {
            decision.act(name, NodeState::Unhealthy(why), Action::MarkHealthy(None));
        }
        Health::NotYet { why, until, again } => {
            decision.wake(again.map_or(until, |again| again.min(until)));
            decision.say(name, NodeState::Unhealthy(why));
        }
    }
}

/// A healthy node stays so for the soak time before the image is kept.
fn soak(policy: &Policy, name: &str, record: &Disruption, now: Timestamp, decision: &mut Decision) {
    match record.healthy_since {
        // Nothing has to be remembered where nothing is waited for.
        None if policy.soak.is_zero() => decision.act(name, NodeState::Committing, Action::Commit),
        None => decision.act(name, NodeState::Soaking, Action::MarkHealthy(Some(now))),
        Some(since) if now >= since.0 + policy.soak => {
            decision.act(name, NodeState::Committing, Action::Commit);
        }
        Some(since) => {
            let again = gates::interval(policy, GateTime::After).map(|interval| now + interval);
            let end = since.0 + policy.soak;
            decision.wake(again.map_or(end, |again| again.min(end)));
            decision.say(name, NodeState::Soaking);
        }
    }
}

/// How a node on trial is, as the cluster sees it.
enum Health {
    Good,
    /// A hook has to be run first.
    Run(String),
    /// It will not be any better.
    Failed(String),
    NotYet {
        why: String,
        /// When there was time enough.
        until: Timestamp,
        /// When it is to be looked at again, even if nothing is seen to change.
        again: Option<Timestamp>,
    },
}

/// First the node itself, then its hooks, then the cluster: each needs the one before.
fn health(
    policy: &Policy,
    node: &NodeSeen,
    record: &Disruption,
    deadline: Timestamp,
    now: Timestamp,
) -> Health {
    if let Some(why) = unhealthy(node, record) {
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
        Some(unmet) => Health::NotYet { why: unmet.why, until: unmet.until, again: Some(unmet.again) },
    }
}

/// What keeps the node itself from being healthy.
fn unhealthy(node: &NodeSeen, record: &Disruption) -> Option<String> {
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
    (!booted.host_checks_passed).then(|| "the host's own health checks have not passed yet".into())
}
