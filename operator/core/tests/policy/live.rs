//! A cloud-config that needs no reboot: the node stays in service, and all else is as for an image.

use evenkeel_crds::{
    ManagedOSImageSpec,
    cloud_config::OrderedCloudConfig,
    node_plan::{NodePlanSpec, Phase, RollbackCause, Target},
};
use evenkeel_operator_core::{Action, Checks, NodeSeen, NodeState, Policy, gates::Departure};
use serde_json::json;

use crate::fleet::{NEW, action, decide, decide_at, failed, image, minutes, node, now, snapshot, updated};

fn policy(on_change: bool, action: &str) -> Policy {
    let spec: ManagedOSImageSpec = serde_json::from_value(json!({
        "osImage": "registry.example/os:1",
        "drain": { "enabled": true },
        "reboot": { "onCloudConfigChange": on_change },
        "rollout": { "failurePolicy": { "action": action, "maxFailures": 1 } },
    }))
    .unwrap();
    let config = OrderedCloudConfig { document: "{}".into(), sha256: "0123456789abcdef".repeat(4) };
    let policy = Policy::new("os", "0a1b2c3d-uid", &spec, Some(&image(NEW))).unwrap();
    Policy { cloud_config: Some(config), ..policy }
}

/// A node with the image, and an order for the cloud-config.
fn told(policy: &Policy, target: Target, phase: Phase) -> NodeSeen {
    let mut node = node();
    let plan = node.plan.as_mut().unwrap();
    *plan.spec = NodePlanSpec {
        plan_id: Some(policy.plan_id(1)),
        image: policy.image.clone(),
        cloud_config: policy.cloud_config.clone(),
        live: policy.applies_live(),
        target: Some(target),
        commit_deadline_seconds: Some(policy.reboot.commit_deadline_seconds),
        ..NodePlanSpec::default()
    };
    plan.status.plan_id.clone_from(&plan.spec.plan_id);
    (plan.status.phase, plan.status.live) = (phase, policy.applies_live());
    plan.status.booted.as_mut().unwrap().digest = NEW.into();
    node
}

/// The node once its turn has begun, and it came so far.
fn in_turn(policy: &Policy, target: Target, phase: Phase) -> NodeSeen {
    let staged = told(policy, Target::Staged, Phase::Staged);
    let decision = decide(policy, &[("n1", staged)]);
    let Some(Action::BeginDisruption(record)) = action(&decision, "n1") else { panic!("{decision:?}") };
    let mut node = told(policy, target, phase);
    let plan = node.plan.as_mut().unwrap();
    plan.spec.disruption = Some(record);
    if phase == Phase::Trial {
        let booted = plan.status.booted.as_mut().unwrap();
        booted.digest = policy.release().unwrap();
        booted.host_checks_passed = true;
    }
    node
}

#[test]
fn nobody_is_cordoned_or_drained_and_no_other_boot_is_waited_for() {
    let policy = policy(false, "Pause");
    let begun = in_turn(&policy, Target::Staged, Phase::Staged);
    assert!(begun.disruption().unwrap().live);
    let decision = decide(&policy, &[("n1", begun)]);
    assert!(matches!(action(&decision, "n1"), Some(Action::ApproveReboot { .. })), "{decision:?}");
    assert_eq!(decision.report.nodes["n1"], NodeState::Applying);

    let trial = in_turn(&policy, Target::Booted, Phase::Trial);
    assert_eq!(action(&decide(&policy, &[("n1", trial.clone())]), "n1"), Some(Action::Commit));
    // How long it takes is no measure of a reboot.
    let mut kept = in_turn(&policy, Target::Committed, Phase::Committed);
    let before = updated(7).plan.unwrap().spec.last_turn.clone();
    kept.plan.as_mut().unwrap().spec.last_turn = before;
    let Some(Action::EndDisruption(turn)) = action(&decide(&policy, &[("n1", kept)]), "n1") else { panic!() };
    assert_eq!(turn.reboot_took_seconds, Some(7 * 60));
    let sick = NodeSeen { ready: false, ..trial };
    let late = decide_at(&policy, &snapshot(&[("n1", sick)]), now() + minutes(60));
    assert!(matches!(action(&late, "n1"), Some(Action::Revert { .. })), "{late:?}");
}

#[test]
fn what_a_lost_node_was_told_is_no_reboot() {
    let policy = policy(false, "Pause");
    for (target, phase, told) in [
        (Target::Booted, Phase::Activating, "apply its cloud-config"),
        (Target::Committed, Phase::Trial, "keep what it runs"),
        (Target::Reverted, Phase::Trial, "go back"),
    ] {
        let silent = in_turn(&policy, target, phase);
        let late = decide_at(&policy, &snapshot(&[("n1", silent)]), now() + minutes(24 * 60));
        let why = &late.report.rejected.as_ref().unwrap().message;
        assert!(why.contains(&format!("since it was told to {told}, and")), "{why}");
    }
}

/// Budgets that keep pods where they are do not keep a node from what leaves them there.
#[test]
fn no_eviction_is_asked_for_before() {
    let held = Checks { departure: Departure::NotAsked, ..Checks::default() };
    for on_change in [false, true] {
        let policy = policy(on_change, "Pause");
        let staged = NodeSeen { checks: held.clone(), ..told(&policy, Target::Staged, Phase::Staged) };
        let decision = evenkeel_operator_core::plan(&policy, &snapshot(&[("n1", staged)]), now());
        assert_eq!(decision.report.asks.contains("n1"), on_change);
    }
}

#[test]
fn an_agent_that_reboots_all_the_same_gets_another_turn_for_it() {
    let policy = policy(false, "Pause");
    let mut begun = in_turn(&policy, Target::Staged, Phase::Staged);
    begun.plan.as_mut().unwrap().status.live = false;
    assert!(matches!(
        action(&decide(&policy, &[("n1", begun.clone())]), "n1"),
        Some(Action::EndDisruption(_))
    ));
    begun.plan.as_mut().unwrap().spec.disruption = None;
    let Some(Action::BeginDisruption(record)) = action(&decide(&policy, &[("n1", begun)]), "n1") else {
        panic!()
    };
    assert!(!record.live);
}

#[test]
fn another_word_about_reboots_is_passed_on_before_the_turn() {
    let (with, without) = (policy(true, "Pause"), policy(false, "Pause"));
    let staged = told(&with, Target::Staged, Phase::Staged);
    let decision = decide(&without, &[("n1", staged)]);
    assert!(matches!(action(&decision, "n1"), Some(Action::OrderStage { .. })), "{decision:?}");
}

#[test]
fn a_node_that_cannot_do_without_a_reboot_gets_one_once_it_may() {
    let (with, without) = (policy(true, "Pause"), policy(false, "Pause"));
    let refused = told(&without, Target::Staged, Phase::Failed);
    let decision = decide(&without, &[("n1", refused.clone())]);
    assert!(matches!(decision.report.nodes["n1"], NodeState::Failed(_)), "{decision:?}");
    assert!(decision.report.stopped.is_some());

    let decision = decide(&with, &[("n1", refused.clone())]);
    assert!(matches!(action(&decision, "n1"), Some(Action::OrderStage { .. })), "{decision:?}");
    // Until the agent has seen the order, it says what it said before.
    let mut ordered = refused.clone();
    ordered.plan.as_mut().unwrap().spec.live = false;
    let decision = decide(&with, &[("n1", ordered)]);
    assert!(decision.actions.is_empty() && decision.report.stopped.is_none(), "{decision:?}");

    let mut bad = refused;
    bad.plan.as_mut().unwrap().status.bad_digests = vec![with.release().unwrap()];
    assert!(decide(&with, &[("n1", bad)]).report.stopped.is_some(), "that says something of the document");
}

/// What was kept without a reboot is left without one, and no other slot is needed for it.
#[test]
fn a_rollout_is_taken_back_without_a_drain() {
    let policy = policy(false, "RevertAll");
    let mut kept = updated(5);
    let wanted = told(&policy, Target::Committed, Phase::Committed).plan.unwrap();
    let plan = kept.plan.as_mut().unwrap();
    let turn = plan.spec.last_turn.clone();
    *plan.spec = NodePlanSpec { last_turn: turn, ..(*wanted.spec).clone() };
    plan.spec.last_turn.as_mut().unwrap().plan_id = policy.plan_id(1);
    plan.status.plan_id.clone_from(&plan.spec.plan_id);
    plan.status.live = true;
    plan.status.slots.clear();
    plan.status.booted.as_mut().unwrap().digest = policy.release().unwrap();
    let back = |ago| {
        let mut node = failed(RollbackCause::HostCheck, ago);
        let plan = node.plan.as_mut().unwrap();
        plan.spec.plan_id = Some(policy.plan_id(1));
        plan.spec.cloud_config.clone_from(&policy.cloud_config);
        plan.status.plan_id.clone_from(&plan.spec.plan_id);
        plan.status.bad_digests = vec![policy.release().unwrap()];
        node
    };
    let others = [("n2", back(9)), ("n3", back(9))];
    let nodes = |kept: &NodeSeen| [("n1", kept.clone()), others[0].clone(), others[1].clone()];
    let decision = decide(&policy, &nodes(&kept));
    let Some(Action::BeginDisruption(record)) = action(&decision, "n1") else { panic!("{decision:?}") };
    assert!(record.going_back && record.live);
    kept.plan.as_mut().unwrap().spec.disruption = Some(record);
    let decision = decide(&policy, &nodes(&kept));
    assert!(matches!(action(&decision, "n1"), Some(Action::Revert { .. })), "{decision:?}");
}

#[test]
fn what_once_kept_it_in_service_does_not_hold_a_node_that_stays_there() {
    let policy = policy(false, "Pause");
    let mut staged = told(&policy, Target::Staged, Phase::Staged);
    staged.checks.departure = Departure::Held { by: "budget web".into(), again: now() + minutes(1) };
    let decision = decide(&policy, &[("n1", staged)]);
    assert!(
        matches!(action(&decision, "n1"), Some(Action::BeginDisruption(record)) if record.live),
        "{decision:?}"
    );
}
