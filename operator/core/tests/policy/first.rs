//! Which node proves an image, when the reports of the agents are still on their way.

use evenkeel_operator_core::{Action, NodeSeen, PlanSeen, Policy};
use jiff::SignedDuration;
use serde_json::json;

use crate::fleet::{action, decide, decide_at, node, now, policy, snapshot, state, updated};

fn made_now() -> Policy {
    Policy { created: Some(now()), ..policy(&json!({ "maxUnavailable": 2 })) }
}

/// It has a plan by now, and its agent has not reported.
fn silent() -> NodeSeen {
    NodeSeen { plan: Some(PlanSeen::default()), ..node() }
}

fn is_ordered(action: Option<&Action>) -> bool {
    matches!(action, Some(Action::OrderStage { .. }))
}

#[test]
fn an_agent_that_is_quicker_does_not_make_its_node_the_first() {
    let policy = made_now();
    for first in [silent(), NodeSeen { plan: None, ..silent() }] {
        let decision = decide(&policy, &[("a", first), ("b", node())]);
        assert!(!is_ordered(action(&decision, "b").as_ref()));
        assert!(state(&decision, "b").contains("a comes first"), "{}", state(&decision, "b"));
        assert_eq!(decision.report.wake_at, Some(now() + SignedDuration::from_secs(30)));
    }
    let heavy = NodeSeen { weight: 7, ..node() };
    assert!(
        is_ordered(action(&decide(&policy, &[("a", silent()), ("b", heavy)]), "b").as_ref()),
        "b comes first"
    );
}

#[test]
fn the_first_is_waited_for_a_moment_only_and_not_when_it_could_not_start_or_the_image_is_proven() {
    let policy = made_now();
    let nodes = [("a", silent()), ("b", node())];
    let later = now() + SignedDuration::from_secs(30);
    assert!(is_ordered(action(&decide_at(&policy, &snapshot(&nodes), later), "b").as_ref()));
    let away = NodeSeen { ready: false, ..silent() };
    assert!(is_ordered(action(&decide(&policy, &[("a", away), ("b", node())]), "b").as_ref()));
    let proven = [("a", silent()), ("b", node()), ("c", updated(5))];
    assert!(is_ordered(action(&decide(&policy, &proven), "b").as_ref()));
}
