//! What a failure means.

use evenkeel_crds::{
    condition::Time,
    drain::DrainTimeout,
    node_plan::{Phase, PlanError, RollbackCause, SlotState, Target, TurnOutcome},
    rollout_status::Denied,
};
use evenkeel_operator_core::{Action, DrainSeen, NodeSeen, NodeState};
use serde_json::json;

use crate::fleet::{
    NEW, OLD, action, decide, decide_at, failed, image, in_turn, minutes, node, now, ordered, policy,
    snapshot, staged, started, state, updated,
};

#[test]
fn the_first_failure_stops_and_so_does_one_more_than_are_tolerated() {
    let bad = || failed(RollbackCause::HostCheck, 10);
    let stops = |policy: &serde_json::Value, nodes: &[(&str, NodeSeen)]| {
        decide(&crate::fleet::policy(policy), nodes).report.stopped.is_some()
    };
    let three = json!({ "maxUnavailable": 9, "failurePolicy": { "maxFailures": 1 } });
    assert!(stops(&three, &[("n1", bad()), ("n2", staged())]), "no node has proven the image");
    assert!(!stops(&three, &[("n1", bad()), ("n2", staged()), ("n3", updated(5))]));
    assert!(stops(&three, &[("n1", bad()), ("n2", bad()), ("n3", updated(5))]));
    let lenient = json!({ "maxUnavailable": 9, "failurePolicy": { "maxFailures": "50%", "onFirstFailure": "Continue" } });
    assert!(!stops(&lenient, &[("n1", bad()), ("n2", staged())]));
    assert!(stops(&json!({}), &[("n1", bad()), ("n2", staged()), ("n3", updated(5))]), "none is tolerated");
}

#[test]
fn failures_in_a_row_stop_and_a_success_in_between_does_not_let_them_add_up() {
    let policy = policy(&json!({
        "maxUnavailable": 9, "failurePolicy": { "maxFailures": 9, "maxConsecutiveFailures": 2 },
    }));
    let turn = |ago: i64, mut node: NodeSeen| {
        node.plan.as_mut().unwrap().spec.last_turn.as_mut().unwrap().until = Time(now() - minutes(ago));
        node
    };
    let bad = |ago| turn(ago, failed(RollbackCause::HostCheck, ago));
    let good = |ago| turn(ago, updated(5));
    let stopped = |nodes: &[(&str, NodeSeen)]| decide(&policy, nodes).report.stopped.is_some();
    assert!(stopped(&[("n1", good(30)), ("n2", bad(20)), ("n3", bad(10))]));
    assert!(!stopped(&[("n1", bad(30)), ("n2", good(20)), ("n3", bad(10))]));
}

#[test]
fn a_failure_that_says_nothing_of_the_image_is_tried_again_after_pauses_that_grow() {
    let policy = policy(&json!({ "failurePolicy": { "maxAttempts": 3, "backoffSeconds": 600 } }));
    let bad = |attempt: i32| {
        let mut node = failed(RollbackCause::ClusterUnreachable, 0);
        let plan = node.plan.as_mut().unwrap();
        plan.spec.plan_id = Some(policy.plan_id(attempt));
        plan.status.plan_id.clone_from(&plan.spec.plan_id);
        plan.spec.last_turn.as_mut().unwrap().plan_id = policy.plan_id(attempt);
        node
    };
    for (attempt, pause) in [(1, 10), (2, 20)] {
        let at = |after: i64| decide_at(&policy, &snapshot(&[("n1", bad(attempt))]), now() + minutes(after));
        assert_eq!(action(&at(pause - 1), "n1"), None, "attempt {attempt}");
        assert_eq!(at(0).report.wake_at, Some(now() + minutes(pause)));
        assert!(at(0).report.stopped.is_none(), "it is not over");
        let Some(Action::OrderStage { plan_id, .. }) = action(&at(pause), "n1") else {
            panic!("{:?}", at(pause))
        };
        assert_eq!(plan_id, policy.plan_id(attempt + 1));
    }
    assert!(decide(&policy, &[("n1", bad(3))]).report.stopped.is_some(), "that was the last attempt");
    let refused = failed(RollbackCause::Bootloader, 600);
    assert!(decide(&policy, &[("n1", refused)]).report.stopped.is_some(), "the image itself is to blame");
}

#[test]
fn a_node_that_never_answers_again_is_named_counts_and_holds_nobody_for_ever() {
    let lost = in_turn(Target::Reverted, Phase::Rebooting, 60);
    let lenient = policy(&json!({
        "maxUnavailable": 2, "failurePolicy": { "maxFailures": 1, "onFirstFailure": "Continue" },
    }));
    let decision = decide(&lenient, &[("lost", lost.clone()), ("n1", staged()), ("n2", staged())]);
    assert!(matches!(decision.report.nodes["lost"], NodeState::Lost(_)), "{decision:?}");
    assert_eq!(started(&decision), ["n1"], "it takes one place of two");
    let strict = decide(&policy(&json!({ "maxUnavailable": 2 })), &[("lost", lost), ("n1", staged())]);
    let stopped = strict.report.stopped.unwrap();
    assert!(stopped.contains("failed on lost") && stopped.contains("look at the machine"), "{stopped}");
    let early = in_turn(Target::Reverted, Phase::Rebooting, 20);
    assert!(decide(&lenient, &[("n1", early)]).report.stopped.is_none(), "it may still come back");
}

#[test]
fn a_node_that_an_image_before_took_away_holds_nobody_either() {
    let mut lost = in_turn(Target::Reverted, Phase::Rebooting, 60);
    (lost.ready, lost.domain) = (false, "a".into());
    lost.plan.as_mut().unwrap().spec.image = Some(image(OLD));
    let by_domain = policy(&json!({ "maxUnavailable": 2, "topologyKey": "zone", "oneDomainAtATime": true }));
    let other = NodeSeen { domain: "b".into(), ..staged() };
    let decision = decide(&by_domain, &[("lost", lost.clone()), ("n1", other)]);
    assert_eq!(started(&decision), ["n1"], "its domain is not waited for");
    assert!(matches!(decision.report.nodes["lost"], NodeState::Lost(_)), "{decision:?}");
    assert!(decision.report.stopped.is_none(), "it says nothing of the image that is wanted now");
    let back = policy(&json!({ "maxUnavailable": 1, "failurePolicy": { "action": "RevertAll" } }));
    let bad = ("bad", failed(RollbackCause::HostCheck, 1));
    let decision = decide(&back, &[bad, ("lost", lost), ("n1", updated(5))]);
    assert_eq!(started(&decision), ["n1"], "nor does it keep others from their cure");
}

fn denied(until: Option<Time>) -> Denied {
    Denied { digest: NEW.into(), cause: "n7: it hung".into(), count: 1, since: Time(now()), until }
}

#[test]
fn an_image_that_nodes_came_back_from_is_denied_until_somebody_or_time_allows_it() {
    let mut policy = policy(&json!({ "failurePolicy": { "denySeconds": 3600 } }));
    let bad = || failed(RollbackCause::Bootloader, 10);
    let decision = decide(&policy, &[("n1", bad()), ("n2", bad())]);
    let [entry] = &decision.report.denied[..] else { panic!("{:?}", decision.report.denied) };
    assert_eq!((entry.count, entry.until), (2, Some(Time(now() + minutes(60)))));
    assert!(entry.cause.contains("n1: Bootloader: it hung"), "{}", entry.cause);
    // Both nodes are gone, and with them what they told.
    policy.denied = decision.report.denied;
    let fresh = [("n3", node())];
    let decision = decide(&policy, &fresh);
    let stopped = decision.report.stopped.unwrap();
    assert!(stopped.contains("failed on 2 nodes") && stopped.contains("allow-digest"), "{stopped}");
    assert!(decision.actions.is_empty());
    let later = decide_at(&policy, &snapshot(&fresh), now() + minutes(61));
    assert!(matches!(action(&later, "n3"), Some(Action::OrderStage { .. })), "{later:?}");
    policy.allowed = Some(NEW.into());
    assert!(matches!(action(&decide(&policy, &fresh), "n3"), Some(Action::OrderStage { .. })));
}

#[test]
fn what_is_allowed_in_spite_of_failures_is_stopped_by_one_more() {
    let mut policy = policy(&json!({ "maxUnavailable": 9 }));
    policy.denied = vec![denied(None)];
    policy.allowed = Some(NEW.into());
    let bad = || failed(RollbackCause::Bootloader, 10);
    let decision = decide(&policy, &[("n1", bad()), ("n2", staged())]);
    assert_eq!(started(&decision), ["n2"]);
    let decision = decide(&policy, &[("n1", bad()), ("n2", bad()), ("n3", staged())]);
    assert!(decision.report.stopped.is_some() && started(&decision).is_empty(), "{decision:?}");
    assert_eq!(decision.report.denied[0].count, 1, "what was forgiven does not grow by itself");
    // It was redeemed.
    let decision = decide(&policy, &[("n1", updated(5)), ("n2", updated(5))]);
    assert!(decision.report.denied.is_empty());
}

#[test]
fn nodes_on_trial_go_back_at_once_when_the_policy_says_so() {
    let trial = || in_turn(Target::Booted, Phase::Trial, 2);
    for (what, goes) in [("Pause", false), ("RevertFailed", true), ("RevertAll", true)] {
        let policy = policy(&json!({ "maxUnavailable": 9, "failurePolicy": { "action": what } }));
        let decision = decide(&policy, &[("n1", failed(RollbackCause::Bootloader, 1)), ("n2", trial())]);
        let reverts = matches!(action(&decision, "n2"), Some(Action::Revert { order, .. }) if order.cause == RollbackCause::Rollout);
        assert_eq!(reverts, goes, "{what}: {:?}", action(&decision, "n2"));
    }
}

#[test]
fn a_rollout_is_taken_back_in_turns_within_the_budget() {
    let policy = policy(&json!({ "maxUnavailable": 1, "failurePolicy": { "action": "RevertAll" } }));
    let bad = ("bad", failed(RollbackCause::HostCheck, 1));
    let mut alone = updated(5);
    alone.plan.as_mut().unwrap().status.slots[1].state = SlotState::Empty;
    let mut before = updated(5);
    before.plan.as_mut().unwrap().spec.last_turn = None;
    let nodes = [bad.clone(), ("alone", alone), ("before", before), ("n1", updated(5)), ("n2", updated(5))];
    let decision = decide(&policy, &nodes);
    assert_eq!(started(&decision), ["n1"], "one by one, in spite of the one that failed");
    assert!(matches!(decision.report.nodes["n2"], NodeState::WaitsToGoBack(_)), "{decision:?}");
    assert_eq!(decision.report.nodes["alone"], NodeState::Updated, "it has nothing to go back to");
    assert_eq!(decision.report.nodes["before"], NodeState::Updated, "the rollout did not bring it there");
    // Its turn: cordon, drain, and only then the order.
    let Some(Action::BeginDisruption(record)) = action(&decision, "n1") else { panic!() };
    let mut node = updated(5);
    node.plan.as_mut().unwrap().spec.disruption = Some(record);
    assert_eq!(action(&decide(&policy, &[bad.clone(), ("n1", node.clone())]), "n1"), Some(Action::Cordon));
    (node.unschedulable, node.cordoned_by, node.drain) = (true, Some("os".into()), DrainSeen::Done);
    let decision = decide(&policy, &[bad.clone(), ("n1", node.clone())]);
    let Some(Action::Revert { order: revert, .. }) = action(&decision, "n1") else { panic!("{decision:?}") };
    assert_eq!(revert.cause, RollbackCause::Rollout);
    // It is back, and is given back; its turn does not count as a failure of the image.
    let plan = node.plan.as_mut().unwrap();
    (plan.spec.target, plan.spec.revert, plan.status.phase) =
        (Some(Target::Reverted), Some(revert), Phase::RolledBack);
    plan.status.rolled_back = failed(RollbackCause::Rollout, 0).plan.unwrap().status.rolled_back.clone();
    (node.unschedulable, node.cordoned_by) = (false, None);
    let decision = decide(&policy, &[bad.clone(), ("n1", node.clone())]);
    let Some(Action::EndDisruption(turn)) = action(&decision, "n1") else { panic!("{decision:?}") };
    assert_eq!(turn.outcome, TurnOutcome::Dropped);
    node.plan.as_mut().unwrap().spec.disruption = None;
    let decision = decide(&policy, &[bad, ("n1", node)]);
    assert_eq!(decision.report.nodes["n1"], NodeState::TakenBack);
    assert_eq!(action(&decision, "n1"), None);
}

#[test]
fn a_node_whose_drain_is_overdue_on_its_way_back_is_given_back_once() {
    let policy = policy(&json!({ "failurePolicy": { "action": "RevertAll" } }));
    let bad = ("bad", failed(RollbackCause::HostCheck, 1));
    let mut node = in_turn(Target::Committed, Phase::Committed, 61);
    node.plan.as_mut().unwrap().spec.disruption.as_mut().unwrap().going_back = true;
    node.plan.as_mut().unwrap().status.booted.as_mut().unwrap().digest = NEW.into();
    node.drain = DrainSeen::Remaining { pods: 1, blocked_by: Some("web".into()) };
    let patient = {
        let mut policy = policy.clone();
        policy.drain.on_timeout = DrainTimeout::Retry;
        policy
    };
    assert_eq!(action(&decide(&patient, &[bad.clone(), ("n1", node.clone())]), "n1"), Some(Action::Evict));
    let decision = decide(&policy, &[bad.clone(), ("n1", node.clone())]);
    assert_eq!(action(&decision, "n1"), Some(Action::Uncordon), "it runs what it ran, and stays");
    (node.unschedulable, node.cordoned_by, node.drain) = (false, None, DrainSeen::NotLookedAt);
    let decision = decide(&policy, &[bad.clone(), ("n1", node.clone())]);
    let Some(Action::EndDisruption(turn)) = action(&decision, "n1") else { panic!("{decision:?}") };
    let plan = node.plan.as_mut().unwrap();
    (plan.spec.disruption, plan.spec.last_turn) = (None, Some(turn));
    assert_eq!(action(&decide(&policy, &[bad, ("n1", node)]), "n1"), None, "it is not begun again");
}

#[test]
fn a_node_on_trial_that_waits_for_its_cluster_is_not_lost() {
    let mut policy = policy(&json!({}));
    policy.gates = serde_json::from_value(json!([{
        "name": "storage", "timeoutSeconds": 86_400,
        "cel": { "apiVersion": "v1", "kind": "Storage", "expression": "true" },
    }]))
    .unwrap();
    let mut node = in_turn(Target::Booted, Phase::Trial, 300);
    node.boot_id = "b2".into();
    let booted = node.plan.as_mut().unwrap().status.booted.as_mut().unwrap();
    (booted.digest, booted.boot_id, booted.host_checks_passed) = (NEW.into(), "b2".into(), true);
    let decision = decide(&policy, &[("n1", node.clone()), ("n2", updated(5))]);
    assert!(matches!(decision.report.nodes["n1"], NodeState::Unhealthy(_)), "{decision:?}");
    assert!(decision.report.stopped.is_none() && decision.actions.is_empty(), "{decision:?}");
    // The same node, of which nothing was heard, is.
    node.plan.as_mut().unwrap().status.phase = Phase::Rebooting;
    let decision = decide(&policy, &[("n1", node), ("n2", updated(5))]);
    assert!(decision.report.stopped.is_some(), "{decision:?}");
}

#[test]
fn a_node_that_has_nothing_to_go_back_to_is_given_back_as_it_is() {
    let policy = policy(&json!({ "failurePolicy": { "action": "RevertAll" } }));
    let mut node = updated(5);
    let mut turn = in_turn(Target::Reverted, Phase::Committed, 1).disruption().cloned().unwrap();
    turn.going_back = true;
    let plan = node.plan.as_mut().unwrap();
    (plan.spec.disruption, plan.spec.target) = (Some(turn), Some(Target::Reverted));
    let message = "no other slot holds a complete image".into();
    plan.status.error = Some(PlanError { reason: "NothingToRevertTo".into(), message, retryable: false });
    let decision = decide(&policy, &[("bad", failed(RollbackCause::HostCheck, 1)), ("n1", node)]);
    assert!(matches!(action(&decision, "n1"), Some(Action::EndDisruption(_))), "{decision:?}");
}

#[test]
fn tolerated_failures_are_said_and_end_the_rollout() {
    let policy = policy(&json!({ "maxUnavailable": 5, "failurePolicy": { "maxFailures": 1 } }));
    let nodes = [("n1", failed(RollbackCause::HostCheck, 10)), ("n2", updated(5))];
    let report = decide(&policy, &nodes).report;
    assert!(report.ended() && !report.done(), "{report:?}");
    assert!(report.progress.as_ref().unwrap().finished_at.is_some());
    assert!(report.summary().contains("1 failed (n1: HostCheck: it hung)"), "{}", report.summary());
    let going = [
        ("n1", failed(RollbackCause::HostCheck, 10)),
        ("n2", ordered(Target::Staged, Phase::Staging)),
        ("n3", updated(5)),
    ];
    assert!(!decide(&policy, &going).report.ended());
    assert_eq!(state(&decide(&policy, &going), "n2"), "staging");
}
