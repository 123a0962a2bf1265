//! A machine that begins anew from the cluster.

use evenkeel_crds::node_plan::{PlanError, ResetStatus, RollbackCause, Wipe};
use evenkeel_operator_core::{Action, DrainSeen, NodeSeen, NodeState, Policy};
use jiff::Timestamp;
use serde_json::json;

use crate::fleet::{action, decide, decide_at, failed, minutes, node, now, policy, snapshot, state, updated};

const STATE: Wipe = Wipe { state: true, oem: false };

fn wanted(node: NodeSeen) -> NodeSeen {
    NodeSeen { reset: Some(STATE), ..node }
}

/// The node after the operator's next writes, until it waits for the machine.
fn told(policy: &Policy) -> NodeSeen {
    let mut node = wanted(updated(5));
    for _ in 0..8 {
        let plan = node.plan.clone().unwrap();
        match action(&decide(policy, &[("n1", node.clone())]), "n1") {
            Some(Action::BeginDisruption(record)) => {
                node.plan.as_mut().unwrap().spec.disruption = Some(record);
            }
            Some(Action::Cordon) => {
                (node.unschedulable, node.cordoned_by) = (true, Some(policy.name.clone()));
            }
            Some(Action::OrderReset(order)) => {
                node.plan.as_mut().unwrap().spec.reset = Some(order);
                return node;
            }
            other => panic!("{other:?} of {plan:?}"),
        }
    }
    panic!("it is never told");
}

fn cordoning() -> Policy {
    let mut policy = Policy { cordon: true, ..policy(&json!({})) };
    policy.drain.enabled = false;
    policy
}

fn came_back(mut node: NodeSeen, failed: Option<PlanError>) -> NodeSeen {
    let plan = node.plan.as_mut().unwrap();
    let id = plan.spec.reset.clone().unwrap().id;
    plan.status.last_reset = Some(ResetStatus { id, failed });
    node.boot_id = "b9".into();
    node
}

fn late() -> Timestamp {
    now() + minutes(60)
}

#[test]
fn it_is_cordoned_told_once_and_given_back_when_it_says_that_it_began_anew() {
    let policy = cordoning();
    let told = told(&policy);
    assert_eq!(action(&decide(&policy, &[("n1", told.clone())]), "n1"), None, "it is waited for");
    let back = came_back(told, None);
    let away = NodeSeen { ready: false, ..back.clone() };
    assert_eq!(action(&decide(&policy, &[("n1", away)]), "n1"), None, "it is not Ready yet");
    assert_eq!(
        action(&decide(&policy, &[("n1", back.clone())]), "n1"),
        Some(Action::ForgetReset { failed: None })
    );
    let forgotten = NodeSeen { reset: None, ..back };
    assert_eq!(action(&decide(&policy, &[("n1", forgotten.clone())]), "n1"), Some(Action::Uncordon));
    let mut uncordoned = NodeSeen { unschedulable: false, cordoned_by: None, ..forgotten };
    assert_eq!(action(&decide(&policy, &[("n1", uncordoned.clone())]), "n1"), Some(Action::EndReset));
    let spec = &mut uncordoned.plan.as_mut().unwrap().spec;
    (spec.disruption, spec.reset) = (None, None);
    let decision = decide(&policy, &[("n1", uncordoned)]);
    assert_eq!(decision.report.nodes["n1"], NodeState::Updated);
}

#[test]
fn one_that_fails_or_says_nothing_is_given_back_and_nothing_is_said_against_the_image() {
    let policy = cordoning();
    let error = PlanError {
        reason: "EspFull".into(),
        message: "the boot partition is full".into(),
        ..PlanError::default()
    };
    let refused = came_back(told(&policy), Some(error));
    let decision = decide(&policy, &[("n1", refused)]);
    let why = Some("the boot partition is full".to_owned());
    assert_eq!(action(&decision, "n1"), Some(Action::ForgetReset { failed: why }));
    assert_eq!(decision.report.stopped, None);
    let silent = decide_at(&policy, &snapshot(&[("n1", told(&policy))]), late());
    assert!(matches!(action(&silent, "n1"), Some(Action::ForgetReset { failed: Some(_) })));
    let gone = NodeSeen { ready: false, ..told(&policy) };
    let silent = decide_at(&policy, &snapshot(&[("n1", gone)]), late());
    assert!(action(&silent, "n1").is_none() && state(&silent, "n1").contains("look at the machine"));
    assert_eq!(silent.report.stopped, None);
}

#[test]
fn a_wish_is_given_up_when_the_drain_does_not_end() {
    let spec = json!({ "drain": { "enabled": true, "timeoutSeconds": 600, "onTimeout": "UncordonAndFail" } });
    let mut policy = Policy { cordon: true, ..policy(&json!({})) };
    policy.drain = serde_json::from_value(spec["drain"].clone()).unwrap();
    let begun = decide(&policy, &[("n1", wanted(updated(5)))]);
    let Some(Action::BeginDisruption(record)) = action(&begun, "n1") else { panic!("{begun:?}") };
    let mut draining = wanted(updated(5));
    draining.plan.as_mut().unwrap().spec.disruption = Some(record);
    (draining.unschedulable, draining.cordoned_by) = (true, Some(policy.name.clone()));
    draining.drain = DrainSeen::Remaining { pods: 1, blocked_by: Some("web-pdb".into()) };
    let overdue = decide_at(&policy, &snapshot(&[("n1", draining.clone())]), now() + minutes(10));
    let given_up = action(&overdue, "n1");
    let says = |why: &str| why.contains("did not end in 600 s") && why.contains("web-pdb");
    assert!(
        matches!(&given_up, Some(Action::ForgetReset { failed: Some(why) }) if says(why)),
        "{given_up:?}"
    );
    let forgotten = NodeSeen { reset: None, ..draining };
    let after = decide_at(&policy, &snapshot(&[("n1", forgotten)]), now() + minutes(10));
    assert_eq!(action(&after, "n1"), Some(Action::Uncordon));
}

#[test]
fn a_wish_that_waits_for_a_budget_that_failed_nodes_take_needs_a_person() {
    let policy = policy(&json!({ "maxUnavailable": 1, "failurePolicy": { "maxFailures": 5 } }));
    let broken = failed(RollbackCause::HostCheck, 9);
    let decision = decide(&policy, &[("n1", wanted(updated(5))), ("n2", broken)]);
    assert!(state(&decision, "n1").contains("waits to begin anew"), "{}", state(&decision, "n1"));
    assert_eq!(decision.report.used_up.as_deref(), Some("maxUnavailable"));
}

#[test]
fn a_wish_that_is_taken_back_before_the_order_ends_the_turn_and_after_it_changes_nothing() {
    let policy = cordoning();
    let mut told = told(&policy);
    let after = NodeSeen { reset: None, ..told.clone() };
    assert_eq!(action(&decide(&policy, &[("n1", after)]), "n1"), None, "the machine may have begun");
    told.plan.as_mut().unwrap().spec.reset = None;
    let before = NodeSeen { reset: None, ..told };
    assert_eq!(action(&decide(&policy, &[("n1", before)]), "n1"), Some(Action::Uncordon));
}

#[test]
fn budget_and_pauses_hold_it_and_a_failure_elsewhere_does_not() {
    let policy = policy(&json!({ "maxUnavailable": 1 }));
    let down = NodeSeen { ready: false, ..updated(5) };
    let decision = decide(&policy, &[("n1", wanted(updated(5))), ("n2", down)]);
    assert_eq!(action(&decision, "n1"), None);
    assert!(state(&decision, "n1").contains("waits to begin anew: 1 of 1"), "{}", state(&decision, "n1"));
    let mut paused = policy.clone();
    paused.pauses = serde_json::from_value(json!([{ "owner": "night" }])).unwrap();
    assert!(action(&decide(&paused, &[("n1", wanted(updated(5)))]), "n1").is_none());
    let begins = |decision| matches!(action(&decision, "n1"), Some(Action::BeginDisruption(record)) if record.reset == Some(STATE));
    assert!(begins(decide(&policy, &[("n1", wanted(failed(RollbackCause::HostCheck, 1))), ("n2", node())])));
    assert!(
        begins(decide(&policy, &[("n1", wanted(NodeSeen { ready: false, ..updated(5) }))])),
        "it may need it most"
    );
}
