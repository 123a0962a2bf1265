//! Steps: some nodes, then time or somebody's word.

use evenkeel_crds::{node_plan::RollbackCause, rollout_status::Progress};
use evenkeel_operator_core::{
    Action, NodeSeen, Policy, Report,
    report::{StepState, StepWait},
    wishes::{Approved, step_token},
};
use serde_json::json;

use crate::fleet::{
    NEW, action, decide, decide_at, failed, minutes, node, now, policy, snapshot, staged, started, updated,
};

fn waits(report: &Report) -> Option<&StepWait> {
    report.step.as_ref().map(|StepState { waits, .. }| waits)
}

fn fleet(done: usize) -> Vec<(&'static str, NodeSeen)> {
    let names = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];
    names
        .iter()
        .enumerate()
        .map(|(at, name)| (*name, if at < done { updated(5) } else { staged() }))
        .collect()
}

/// The policy after a look whose status was kept.
fn kept(mut policy: Policy, progress: Option<Progress>) -> Policy {
    policy.progress = progress;
    policy
}

#[test]
fn a_step_starts_so_many_nodes_and_then_soaks() {
    let policy = policy(&json!({
        "maxUnavailable": 10, "steps": [{ "nodes": 2, "soakSeconds": 3600 }, { "nodes": "50%" }],
    }));
    assert_eq!(started(&decide(&policy, &fleet(0))), ["n0", "n1"]);
    assert_eq!(started(&decide(&policy, &fleet(1))), ["n1"]);
    let decision = decide(&policy, &fleet(2));
    assert_eq!(started(&decision), [""; 0]);
    assert_eq!(waits(&decision.report), Some(&StepWait::Soak { until: now() + minutes(60) }));
    assert_eq!(decision.report.wake_at, Some(now() + minutes(60)));
    let policy = kept(policy, decision.report.progress);
    let later =
        |minute: i64, done: usize| decide_at(&policy, &snapshot(&fleet(done)), now() + minutes(minute));
    assert_eq!(started(&later(59, 2)), [""; 0]);
    assert_eq!(started(&later(60, 2)), ["n2", "n3", "n4"], "half of ten");
    assert_eq!(later(60, 2).report.progress.unwrap().steps_passed, 1);
    // The last step is over with its nodes: all that are left follow.
    assert_eq!(started(&later(60, 5)).len(), 5);
    assert_eq!(later(60, 5).report.step, None);
}

#[test]
fn a_step_waits_for_a_word_that_is_kept_with_the_name_and_counts_for_one_image() {
    let mut policy = policy(&json!({ "maxUnavailable": 10, "steps": [{ "nodes": 1, "approval": true }] }));
    let decision = decide(&policy, &fleet(1));
    let token = step_token(NEW, 0);
    assert_eq!(waits(&decision.report), Some(&StepWait::Approval { token: token.clone() }));
    let line = decision.report.summary();
    assert!(line.contains(&format!("annotate evenkeel.dev/approve='{token} YOUR-NAME'")), "{line}");
    policy.approved = Some(Approved { step: step_token("sha256:33333333333333", 0), by: "alice".into() });
    assert_eq!(started(&decide(&policy, &fleet(1))), [""; 0], "that was for another image");
    policy.approved = Some(Approved { step: token, by: "alice".into() });
    let decision = decide(&policy, &fleet(1));
    assert_eq!(started(&decision).len(), 9);
    let progress = decision.report.progress.unwrap();
    assert_eq!((progress.approvals[0].by.as_str(), progress.approvals[0].step), ("alice", 1));
    policy.approved = None;
    assert_eq!(started(&decide(&kept(policy, Some(progress)), &fleet(1))).len(), 9, "the annotation may go");
}

#[test]
fn nodes_of_a_selector_wait_for_their_step_and_late_ones_follow_at_once() {
    let policy = policy(&json!({
        "maxUnavailable": 10, "steps": [{ "nodes": 1 }, { "selector": { "matchLabels": { "canary": "yes" } }, "soakSeconds": 60 }],
    }));
    let canary = |node: NodeSeen| NodeSeen { step: Some(1), ..node };
    let nodes =
        |canaries: NodeSeen, first: NodeSeen| [("a", canary(canaries)), ("b", first), ("c", staged())];
    assert_eq!(started(&decide(&policy, &nodes(staged(), staged()))), ["b"]);
    assert_eq!(started(&decide(&policy, &nodes(staged(), updated(5)))), ["a"]);
    let decision = decide(&policy, &nodes(updated(5), updated(5)));
    assert_eq!(started(&decision), [""; 0]);
    let policy = kept(policy, decision.report.progress);
    let late = [("a", canary(staged())), ("b", updated(5)), ("c", staged())];
    let at = |nodes: &[(&str, NodeSeen)]| decide_at(&policy, &snapshot(nodes), now() + minutes(2));
    assert_eq!(started(&at(&late)), ["a"], "a canary joined before its step was over");
    let passed = at(&nodes(updated(5), updated(5))).report.progress;
    let policy = kept(policy.clone(), passed);
    assert_eq!(
        started(&decide_at(&policy, &snapshot(&late), now() + minutes(3))),
        ["a", "c"],
        "and after it"
    );
}

/// It was staged while its step was open, or before the others joined.
#[test]
fn a_staged_node_of_a_later_step_does_not_keep_the_first_step_from_proving_the_image() {
    let policy = policy(&json!({
        "maxUnavailable": 1, "steps": [{ "nodes": 1 }, { "selector": { "matchLabels": { "late": "yes" } } }],
    }));
    let late = |node: NodeSeen| NodeSeen { step: Some(1), ..node };
    let decision = decide(&policy, &[("a", late(staged())), ("b", node()), ("c", late(node()))]);
    assert!(matches!(action(&decision, "b"), Some(Action::OrderStage { .. })), "{decision:?}");
    assert_eq!((action(&decision, "a"), action(&decision, "c")), (None, None));
}

#[test]
fn a_staged_node_that_the_operator_came_to_does_not_keep_others_from_going_first() {
    let policy = policy(&json!({ "maxUnavailable": 1 }));
    let own = NodeSeen { runs_operator: true, ..staged() };
    let decision = decide(&policy, &[("a", own.clone()), ("b", node())]);
    assert!(matches!(action(&decision, "b"), Some(Action::OrderStage { .. })), "{decision:?}");
    assert_eq!(started(&decide(&policy, &[("a", own)])), ["a"], "nobody is left to go first");
}

#[test]
fn a_step_is_not_held_by_a_failure_that_is_tolerated_and_not_passed_without_a_node() {
    let lenient = policy(&json!({
        "maxUnavailable": 5, "steps": [{ "nodes": 2 }],
        "failurePolicy": { "maxFailures": 1, "onFirstFailure": "Continue" },
    }));
    let nodes =
        [("a", failed(RollbackCause::HostCheck, 1)), ("b", updated(5)), ("c", staged()), ("d", staged())];
    // One more is needed for two nodes that run the image.
    assert_eq!(started(&decide(&lenient, &nodes)), ["c"]);
    let empty = policy(&json!({ "steps": [{ "selector": { "matchLabels": { "no": "node" } } }] }));
    let decision = decide(&empty, &[("a", staged())]);
    assert_eq!(waits(&decision.report), Some(&StepWait::NoNode));
    assert_eq!(started(&decision), [""; 0]);
    assert!(decision.report.summary().contains("its selector matches no node"));
}
