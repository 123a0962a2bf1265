//! Recovery slots.

use evenkeel_crds::{
    condition::Time,
    node_plan::{PlanError, RecoveryFailure, RecoveryOrder, RecoveryStatus},
    verification::Verification,
};
use evenkeel_operator_core::{Action, Decision, NodeSeen, Policy};
use serde_json::json;

use crate::fleet::{action, decide, image, minutes, now, policy, staged, updated};

const WANTED: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

const THIRD: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

fn wanted(mut policy: Policy) -> Policy {
    policy.recovery_image = Some(image(WANTED));
    policy
}

fn told(recovery: Option<RecoveryStatus>) -> NodeSeen {
    let mut node = updated(5);
    let plan = node.plan.as_mut().unwrap();
    plan.spec.recovery = Some(RecoveryOrder { image: image(WANTED), ordered_at: Time(now()) });
    plan.status.recovery = recovery;
    node
}

#[test]
fn they_are_written_on_nodes_that_run_the_image_some_at_a_time() {
    let policy = wanted(policy(&json!({ "maxStaging": 2, "maxUnavailable": 5 })));
    let order =
        Some(Action::OrderRecovery(Some(RecoveryOrder { image: image(WANTED), ordered_at: Time(now()) })));
    let nodes = [("n1", updated(5)), ("n2", updated(5)), ("n3", told(None)), ("n4", staged())];
    let decision = decide(&policy, &nodes);
    assert_eq!(action(&decision, "n1"), order);
    assert_eq!(action(&decision, "n2"), None, "two at a time, of which n3 is one");
    assert!(!matches!(action(&decision, "n4"), Some(Action::OrderRecovery(_))), "its own image comes first");
    assert!(
        decision.report.summary().ends_with("recovery slots: 3 to be written, 2 now"),
        "{}",
        decision.report.summary()
    );

    let holds = RecoveryStatus { digest: Some(WANTED.into()), ..RecoveryStatus::default() };
    let decision = decide(&policy, &[("n1", updated(5)), ("n2", updated(5)), ("n3", told(Some(holds)))]);
    assert_eq!((action(&decision, "n1"), action(&decision, "n2")), (order.clone(), order));
}

fn failed(of: &str, retryable: bool) -> NodeSeen {
    let error = PlanError { reason: "Reason".into(), message: "it is too large".into(), retryable };
    let failed = Some(RecoveryFailure { image: image(of), error });
    told(Some(RecoveryStatus { failed, ..RecoveryStatus::default() }))
}

fn is_told(decision: &Decision, name: &str) -> bool {
    matches!(action(decision, name), Some(Action::OrderRecovery(Some(_))))
}

#[test]
fn one_that_cannot_be_written_is_told_and_keeps_nobody_waiting() {
    let policy = wanted(policy(&json!({ "maxStaging": 1 })));
    let decision = decide(&policy, &[("n1", failed(WANTED, false)), ("n2", updated(5))]);
    assert!(is_told(&decision, "n2"));
    let line = decision.report.summary();
    assert!(
        line.ends_with("recovery slots: 1 to be written, 1 now, 1 cannot be (n1: it is too large)"),
        "{line}"
    );
    // What may still come to something keeps its place, as does one that speaks of an image before.
    for busy in [failed(WANTED, true), failed(THIRD, false)] {
        assert!(!is_told(&decide(&policy, &[("n1", busy), ("n2", updated(5))]), "n2"));
    }
    let mut late = told(None);
    late.plan.as_mut().unwrap().spec.recovery.as_mut().unwrap().ordered_at = Time(now() - minutes(61));
    assert!(
        is_told(&decide(&policy, &[("n1", late), ("n2", updated(5))]), "n2"),
        "nobody is waited for that long"
    );
}

#[test]
fn what_is_wanted_now_is_told_at_once_to_those_that_write_something_else() {
    let mut policy = wanted(policy(&json!({ "maxStaging": 1 })));
    let mut busy = told(None);
    busy.plan.as_mut().unwrap().spec.recovery.as_mut().unwrap().image = image(THIRD);
    let decision = decide(&policy, &[("n1", busy), ("n2", updated(5))]);
    assert!(is_told(&decision, "n1") && !is_told(&decision, "n2"));
    // So is who must have signed it.
    policy.verification = Some(Verification::any_of(vec!["key".into()]));
    assert!(is_told(&decide(&policy, &[("n1", told(None))]), "n1"));
    policy.recovery_image = None;
    let decision = decide(&policy, &[("n1", told(None)), ("n2", updated(5))]);
    assert_eq!(action(&decision, "n1"), Some(Action::OrderRecovery(None)));
    assert_eq!(action(&decision, "n2"), None);
}

#[test]
fn nothing_is_ordered_while_nothing_may_be_begun() {
    let calm = wanted(policy(&json!({})));
    let paused = wanted(policy(&json!({ "pauses": [{ "owner": "me" }] })));
    let night = json!({ "stagingWindows": [{ "cron": "0 2 * * *", "durationSeconds": 3600 }] });
    let dry = Policy { dry_run: true, ..calm.clone() };
    let nobody = policy(&json!({}));
    for policy in [&paused, &wanted(policy(&night)), &dry, &nobody] {
        assert_eq!(action(&decide(policy, &[("n1", updated(5))]), "n1"), None);
    }
    assert!(action(&decide(&calm, &[("n1", updated(5))]), "n1").is_some());
}
