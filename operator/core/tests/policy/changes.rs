//! What happens when something changes in the middle.

use evenkeel_crds::{
    cloud_config::OrderedCloudConfig,
    node_plan::{NodePlanStatus, Phase, RollbackCause, Target},
};
use evenkeel_operator_core::{Action, NodeSeen, NodeState, PlanSeen};
use serde_json::json;

use crate::fleet::{
    NEW, action, decide, failed, image, in_turn, node, ordered, policy, staged, started, updated,
};

const THIRD: &str = "sha256:3333333333333333333333333333333333333333333333333333333333333333";

#[test]
fn another_image_re_stages_aborts_or_waits_for_the_reboot() {
    let mut policy = policy(&json!({ "maxUnavailable": 5 }));
    policy.image = Some(image(THIRD));
    let nodes = [
        ("drains", in_turn(Target::Staged, Phase::Staged, 1)),
        ("reboots", in_turn(Target::Booted, Phase::Rebooting, 1)),
        ("staged", staged()),
        ("stages", ordered(Target::Staged, Phase::Staging)),
    ];
    let decision = decide(&policy, &nodes);
    for name in ["staged", "stages"] {
        let Some(Action::OrderStage { image: ordered, plan_id, .. }) = action(&decision, name) else {
            panic!("{decision:?}")
        };
        assert_eq!((ordered, plan_id), (image(THIRD), policy.plan_id(1)));
    }
    assert_eq!(action(&decision, "drains"), Some(Action::Uncordon));
    assert_eq!(decision.report.nodes["reboots"], NodeState::Rebooting);
    // What it kept is not what is wanted any more: after its turn it is staged anew.
    let kept = ordered(Target::Committed, Phase::Committed);
    assert!(matches!(action(&decide(&policy, &[("n1", kept)]), "n1"), Some(Action::OrderStage { .. })));
}

/// The same image with another cloud-config is as much another thing to roll out as another image is.
#[test]
fn another_cloud_config_is_rolled_out_like_another_image() {
    let mut policy = policy(&json!({ "maxUnavailable": 5 }));
    let plan_id = policy.plan_id(1);
    policy.cloud_config =
        Some(OrderedCloudConfig { document: "{}".into(), sha256: "0123456789abcdef".repeat(4) });
    assert_eq!(policy.release().unwrap(), format!("{NEW}+0123456789abcdef"));
    assert_ne!(policy.plan_id(1), plan_id);
    assert_eq!((policy.attempt_of(&plan_id), policy.attempt_of(&policy.plan_id(7))), (None, Some(7)));
    let nodes = [
        ("drains", in_turn(Target::Staged, Phase::Staged, 1)),
        ("failed", failed(RollbackCause::HostCheck, 5)),
        ("kept", updated(5)),
        ("staged", staged()),
    ];
    let decision = decide(&policy, &nodes);
    // What failed is the image with the configuration that it had.
    for name in ["failed", "kept", "staged"] {
        let Some(Action::OrderStage { plan_id, .. }) = action(&decision, name) else {
            panic!("{name}: {decision:?}")
        };
        assert_eq!(plan_id, policy.plan_id(1));
    }
    assert_eq!(action(&decision, "drains"), Some(Action::Uncordon));
    let mut there = updated(5);
    there.plan.as_mut().unwrap().status.booted.as_mut().unwrap().digest = policy.release().unwrap();
    assert_eq!(decide(&policy, &[("n1", there)]).report.nodes["n1"], NodeState::Updated);
}

#[test]
fn a_node_that_leaves_the_selection_is_given_back_or_finished() {
    let left = |node: NodeSeen| NodeSeen { selected: false, ..node };
    let policy = policy(&json!({ "maxUnavailable": 2 }));
    let nodes = [
        ("drains", left(in_turn(Target::Staged, Phase::Staged, 1))),
        ("n1", staged()),
        ("n2", staged()),
        ("reboots", left(in_turn(Target::Booted, Phase::Rebooting, 1))),
        ("waits", left(staged())),
    ];
    let decision = decide(&policy, &nodes);
    assert_eq!(action(&decision, "drains"), Some(Action::Uncordon));
    assert_eq!(action(&decision, "waits"), Some(Action::ReleasePlan));
    assert_eq!(decision.report.nodes["reboots"], NodeState::Rebooting);
    assert_eq!(started(&decision), [""; 0], "both are out of service, selected or not");
}

#[test]
fn a_machine_that_replaces_another_begins_anew() {
    let policy = policy(&json!({}));
    let bare = NodeSeen { plan: None, ..node() };
    assert_eq!(action(&decide(&policy, &[("n1", bare)]), "n1"), Some(Action::EnsurePlan));
    let silent = NodeSeen { plan: Some(PlanSeen::default()), ..node() };
    let decision = decide(&policy, &[("n1", silent.clone())]);
    assert_eq!((decision.report.nodes["n1"].clone(), decision.actions.len()), (NodeState::AgentSilent, 0));
    // The plan of the machine before is still there; the new one's agent knows nothing of it.
    let mut new = failed(RollbackCause::User, 5);
    let host = new.plan.as_ref().unwrap().status.host.clone();
    new.plan.as_mut().unwrap().status = NodePlanStatus { host, ..NodePlanStatus::default() }.into();
    let Some(Action::OrderStage { plan_id, .. }) = action(&decide(&policy, &[("n1", new)]), "n1") else {
        panic!()
    };
    assert_eq!(plan_id, policy.plan_id(2), "an order never moves backwards");
}
