//! The least version that a node must run.

use evenkeel_operator_core::NodeState;
use serde_json::json;

use crate::fleet::{decide, node, policy, staged, started};

#[test]
fn a_node_that_is_too_old_for_the_version_is_named_and_holds_nobody() {
    let mut policy = policy(&json!({ "maxUnavailable": 5 }));
    policy.minimum = Some("2.0.0".into());
    let running = |version: &str| {
        let mut node = staged();
        node.plan.as_mut().unwrap().status.booted.as_mut().unwrap().version = Some(version.into());
        node
    };
    let nodes = [("new", running("2.1.0")), ("old", running("1.9.0")), ("unknown", node())];
    let decision = decide(&policy, &nodes);
    assert_eq!(started(&decision), ["new"]);
    for name in ["old", "unknown"] {
        assert!(matches!(decision.report.nodes[name], NodeState::BelowMinimum(_)), "{decision:?}");
    }
    let line = decision.report.summary();
    assert!(line.contains("old it runs 1.9.0, and the version can be reached from 2.0.0 on"), "{line}");
    let mut canary = policy.clone();
    let selector = json!({ "steps": [{ "selector": { "matchLabels": { "canary": "yes" } } }] });
    canary.steps = crate::fleet::policy(&selector).steps;
    let old = evenkeel_operator_core::NodeSeen { step: Some(0), ..running("1.9.0") };
    assert_eq!(
        started(&decide(&canary, &[("new", running("2.1.0")), ("old", old)])),
        ["new"],
        "nor in a step"
    );
    assert!(decide(&policy, &nodes[1..]).report.ended(), "nothing more can be done");
}
