//! Turns that are under way: what ends them, and what does not.

use evenkeel_crds::{
    condition::Time,
    node_plan::{Phase, RollbackCause, Target},
};
use evenkeel_operator_core::{
    Action, DrainSeen, NodeSeen, NodeState, Policy,
    gates::GateSeen,
    hooks::{HookSeen, JobSeen},
};
use serde_json::json;

use crate::fleet::{
    NEW, action, decide, failed, in_turn, minutes, now, policy, staged, started, state, updated,
};

/// A policy with a gate that is asked after the reboot and before it.
fn gated() -> Policy {
    let mut policy = policy(&json!({ "soakSeconds": 1200 }));
    policy.gates = serde_json::from_value(json!([{
        "name": "storage", "when": ["During", "After"],
        "cel": { "apiVersion": "v1", "kind": "Storage", "expression": "true" },
    }]))
    .unwrap();
    policy
}

#[test]
fn a_gate_that_nobody_asked_yet_sends_no_node_back() {
    let policy = gated();
    // Healthy since long, and past the time of the gate: then another operator took over, which knows no answers.
    let mut node = in_turn(Target::Booted, Phase::Trial, 18);
    node.boot_id = "b2".into();
    let plan = node.plan.as_mut().unwrap();
    let booted = plan.status.booted.as_mut().unwrap();
    (booted.boot_id, booted.digest, booted.host_checks_passed) = ("b2".into(), NEW.into(), true);
    plan.spec.disruption.as_mut().unwrap().healthy_since = Some(Time(now() - minutes(12)));
    let decision = decide(&policy, &[("n1", node.clone())]);
    assert_eq!(decision.actions, [], "{}", state(&decision, "n1"));
    assert!(decision.report.wake_at.is_some() && state(&decision, "n1").contains("is being looked at"));
    // Once it was asked and is not met, its time is over.
    let unmet = GateSeen {
        name: "storage".into(),
        when: evenkeel_crds::health_gate::GateTime::After,
        met: false,
        since: now(),
        why: "it rebalances".into(),
    };
    node.checks.gates = vec![unmet];
    let reverts = action(&decide(&policy, &[("n1", node)]), "n1");
    assert!(
        matches!(&reverts, Some(Action::Revert { order, .. }) if order.cause == RollbackCause::ClusterGate)
    );
    let mut drained = in_turn(Target::Staged, Phase::Staged, 40);
    drained.drain = DrainSeen::Done;
    drained.plan.as_mut().unwrap().spec.disruption.as_mut().unwrap().drained_at =
        Some(Time(now() - minutes(30)));
    assert_eq!(action(&decide(&policy, &[("n1", drained)]), "n1"), None, "nor before the reboot");
}

#[test]
fn the_time_of_a_drain_is_counted_from_its_begin() {
    let mut policy = policy(&json!({}));
    policy.hooks = serde_json::from_value(json!([{
        "name": "silence", "when": "BeforeCordon", "template": { "spec": {} }, "onFailure": "Block",
    }]))
    .unwrap();
    let hook = |job| HookSeen { name: "silence".into(), job };
    // The hook failed at night, and was mended in the morning.
    let mut node = in_turn(Target::Staged, Phase::Staged, 8 * 60);
    (node.unschedulable, node.cordoned_by) = (false, None);
    node.checks.hooks = vec![hook(JobSeen::Failed { why: "exit code 1".into() })];
    assert_eq!(action(&decide(&policy, &[("n1", node.clone())]), "n1"), None);
    node.checks.hooks = vec![hook(JobSeen::Succeeded)];
    let begun = action(&decide(&policy, &[("n1", node.clone())]), "n1");
    assert_eq!(begun, Some(Action::MarkDraining(now())));
    node.plan.as_mut().unwrap().spec.disruption.as_mut().unwrap().draining_since = Some(Time(now()));
    assert_eq!(action(&decide(&policy, &[("n1", node.clone())]), "n1"), Some(Action::Cordon));
    (node.unschedulable, node.cordoned_by) = (true, Some("os".into()));
    node.drain = DrainSeen::Remaining { pods: 3, blocked_by: None };
    assert_eq!(action(&decide(&policy, &[("n1", node)]), "n1"), Some(Action::Evict));
}

#[test]
fn a_machine_that_dies_on_its_way_back_does_not_keep_the_others_from_theirs() {
    let policy = policy(&json!({ "maxUnavailable": 1, "failurePolicy": { "action": "RevertAll" } }));
    let mut dead = in_turn(Target::Reverted, Phase::Committed, 120);
    dead.ready = false;
    let plan = dead.plan.as_mut().unwrap();
    plan.spec.disruption.as_mut().unwrap().going_back = true;
    plan.status.booted.as_mut().unwrap().digest = NEW.into();
    let nodes = [("bad", failed(RollbackCause::HostCheck, 1)), ("dead", dead), ("n1", updated(5))];
    let decision = decide(&policy, &nodes);
    assert_eq!(started(&decision), ["n1"]);
    assert!(matches!(decision.report.nodes["dead"], NodeState::Lost(_)), "{}", state(&decision, "dead"));
}

#[test]
fn a_node_that_stays_away_after_its_turn_does_not_hold_the_next_domain() {
    let policy = policy(&json!({ "maxUnavailable": 5, "topologyKey": "zone", "oneDomainAtATime": true }));
    let mut away = in_turn(Target::Committed, Phase::Committed, 90);
    (away.ready, away.domain) = (false, "a".into());
    let next = NodeSeen { domain: "b".into(), ..staged() };
    let decision = decide(&policy, &[("a1", away), ("b1", next)]);
    assert_eq!(started(&decision), ["b1"]);
    assert!(state(&decision, "a1").contains("not Ready after its reboot"), "{}", state(&decision, "a1"));
}

#[test]
fn a_lost_node_that_is_tolerated_ends_the_rollout() {
    let policy = policy(&json!({ "maxUnavailable": 5, "failurePolicy": { "maxFailures": 2 } }));
    let mut lost = in_turn(Target::Reverted, Phase::Rebooting, 90);
    lost.ready = false;
    let report = decide(&policy, &[("lost", lost), ("n1", updated(5))]).report;
    assert!(
        matches!(report.nodes["lost"], NodeState::Lost(_)) && report.ended() && !report.done(),
        "{report:?}"
    );
}
