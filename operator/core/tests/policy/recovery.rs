//! Recovery slots.

use evenkeel_crds::node_plan::{PlanError, RecoveryStatus};
use evenkeel_operator_core::{Action, NodeSeen, Policy};
use serde_json::json;

use crate::fleet::{action, decide, image, policy, staged, updated};

const WANTED: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

fn wanted(mut policy: Policy) -> Policy {
    policy.recovery_image = Some(image(WANTED));
    policy
}

fn told(recovery: Option<RecoveryStatus>) -> NodeSeen {
    let mut node = updated(5);
    let plan = node.plan.as_mut().unwrap();
    plan.spec.recovery_image = Some(image(WANTED));
    plan.status.recovery = recovery;
    node
}

#[test]
fn they_are_written_on_nodes_that_run_the_image_some_at_a_time() {
    let policy = wanted(policy(&json!({ "maxStaging": 2, "maxUnavailable": 5 })));
    let order = Some(Action::OrderRecovery { image: image(WANTED) });
    let nodes = [("n1", updated(5)), ("n2", updated(5)), ("n3", told(None)), ("n4", staged())];
    let decision = decide(&policy, &nodes);
    assert_eq!(action(&decision, "n1"), order);
    assert_eq!(action(&decision, "n2"), None, "two at a time, of which n3 is one");
    assert!(
        !matches!(action(&decision, "n4"), Some(Action::OrderRecovery { .. })),
        "its own image comes first"
    );
    assert!(
        decision.report.summary().ends_with("recovery slots: 3 to be written, 2 now"),
        "{}",
        decision.report.summary()
    );

    let holds = RecoveryStatus { digest: Some(WANTED.into()), ..RecoveryStatus::default() };
    let decision = decide(&policy, &[("n1", updated(5)), ("n2", updated(5)), ("n3", told(Some(holds)))]);
    assert_eq!((action(&decision, "n1"), action(&decision, "n2")), (order.clone(), order));
}

#[test]
fn one_that_cannot_be_written_is_told_and_keeps_nobody_waiting() {
    let policy = wanted(policy(&json!({ "maxStaging": 1 })));
    let error =
        PlanError { reason: "ImageTooLarge".into(), message: "it is too large".into(), retryable: false };
    let failed = told(Some(RecoveryStatus { error: Some(error), ..RecoveryStatus::default() }));
    let decision = decide(&policy, &[("n1", failed), ("n2", updated(5))]);
    assert!(matches!(action(&decision, "n2"), Some(Action::OrderRecovery { .. })));
    let line = decision.report.summary();
    assert!(
        line.ends_with("recovery slots: 1 to be written, 1 now, 1 cannot be (n1: it is too large)"),
        "{line}"
    );
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
