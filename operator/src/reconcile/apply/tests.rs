//! What is written for an action, and in which order.

use super::*;
use evenkeel_crds::{
    ManagedOSImageSpec,
    node_plan::{Disruption, LastTurn, Revert, RollbackCause, TurnOutcome},
};

const IMAGE: &str = "r.example/os@sha256:0000000000000000000000000000000000000000000000000000000000000001";

fn policy() -> Policy {
    Policy::new("os", "0a1b2c3d-uid", &ManagedOSImageSpec::default(), Some(IMAGE)).unwrap()
}

fn in_turn() -> NodePlanSpec {
    let record = Disruption {
        since: Time(Timestamp::UNIX_EPOCH),
        found_cordoned: false,
        boot_id_before: "b".into(),
        draining_since: None,
        drained_at: None,
        deadline: None,
        healthy_since: None,
        attempt: 1,
        going_back: false,
        live: false,
        reset: None,
    };
    NodePlanSpec { disruption: Some(record), ..NodePlanSpec::default() }
}

#[test]
fn nodes_on_their_way_come_first_and_drains_are_never_cut_short() {
    let mut decision = Decision::default();
    for number in 0..ACTIONS_MAX {
        decision.actions.push((format!("drained-{number}"), Action::Evict));
        decision.actions.push((format!("new-{number}"), Action::EnsurePlan));
    }
    decision.actions.push(("leaving".into(), Action::Cordon));
    decision.actions.push(("kept".into(), Action::Uncordon));
    decision.actions.push(("healthy".into(), Action::Commit));
    let order: Vec<&str> = by_urgency(&decision).map(|(name, _)| name).collect();
    assert_eq!(order[..3], ["healthy", "kept", "leaving"]);
    assert_eq!(order.len(), 2 * ACTIONS_MAX, "one that is new waits for the next look");
    assert!(order[ACTIONS_MAX..].iter().all(|name| name.starts_with("drained-")));
}

#[test]
fn a_new_order_leaves_nothing_of_the_last_one() {
    let old = NodePlanSpec {
        target: Some(Target::Reverted),
        not_after: Some(Time(Timestamp::UNIX_EPOCH)),
        revert: Some(Revert { cause: RollbackCause::ClusterGate, message: "late".into() }),
        ..NodePlanSpec::default()
    };
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let action = Action::OrderStage { plan_id: "p".into(), image: IMAGE.into(), at };
    let spec = after(&old, &policy(), &action);
    assert_eq!((spec.target, spec.not_after, spec.revert), (Some(Target::Staged), None, None));
    assert_eq!(spec.commit_deadline_seconds, Some(policy().reboot.commit_deadline_seconds));
}

#[test]
fn an_order_keeps_what_others_wrote_on_the_plan_and_no_account_of_who_wrote_what() {
    let mut image = ManagedOSImage::new("os", ManagedOSImageSpec::default());
    image.metadata.uid = Some("0a1b2c3d-uid".into());
    let mut plan = KnownPlan::from(NodePlan::new("n1", in_turn()));
    let owner =
        |uid: &str, controller| OwnerReference { uid: uid.into(), controller, ..OwnerReference::default() };
    plan.metadata.resource_version = Some("7".into());
    plan.metadata.owner_references = Some(vec![owner("before", Some(true)), owner("other", None)]);
    let (since, until) = (Time(Timestamp::UNIX_EPOCH), Time(Timestamp::UNIX_EPOCH));
    let turn = LastTurn {
        plan_id: "p".into(),
        since,
        until,
        outcome: TurnOutcome::Updated,
        reboot_took_seconds: None,
    };
    let change = change(&plan, &image, &policy(), &Action::EndDisruption(turn)).unwrap();
    assert_eq!(change["metadata"]["resourceVersion"], "7");
    assert_eq!(change["metadata"]["managedFields"], json!([{}]));
    let owners = change["metadata"]["ownerReferences"].as_array().unwrap();
    let owners: Vec<&str> = owners.iter().map(|owner| owner["uid"].as_str().unwrap()).collect();
    assert_eq!(owners, ["other", "0a1b2c3d-uid"]);
    assert_eq!(change["spec"]["lastTurn"]["planId"], "p");
    assert!(change["spec"].get("disruption").is_some_and(Value::is_null), "the record goes: {change}");
}

#[test]
fn a_new_plan_has_its_owner_and_no_account_of_who_wrote_what() {
    let mut image = ManagedOSImage::new("os", ManagedOSImageSpec::default());
    image.metadata.uid = Some("0a1b2c3d-uid".into());
    let plan = serde_json::to_value(new_plan(&image, &policy(), "n1")).unwrap();
    assert_eq!(plan["metadata"]["managedFields"], json!([{}]));
    assert_eq!(plan["metadata"]["ownerReferences"][0]["uid"], "0a1b2c3d-uid");
}

#[test]
fn an_approval_and_the_records_deadline_are_one_write() {
    let deadline = Timestamp::from_second(1_800_000_000).unwrap();
    let spec = after(&in_turn(), &policy(), &Action::ApproveReboot { deadline });
    assert_eq!(spec.not_after, Some(Time(deadline)));
    assert_eq!(spec.disruption.unwrap().deadline, Some(Time(deadline)));
}

#[test]
fn a_plan_is_held_from_the_record_of_its_turn_on_to_its_end() {
    let mut plan = KnownPlan::from(NodePlan::new("n1", NodePlanSpec::default()));
    let held = |plan: &KnownPlan| (finalizers(plan, &in_turn()), finalizers(plan, &NodePlanSpec::default()));
    plan.metadata.finalizers = Some(vec!["example.com/other".into()]);
    let (other, ours) = ("example.com/other".to_owned(), FINALIZER.to_owned());
    assert_eq!(held(&plan), (vec![other.clone(), ours.clone()], vec![other.clone()]));
    plan.metadata.deletion_timestamp = serde_json::from_value("2026-01-01T00:00:00Z".into()).ok();
    assert_eq!(held(&plan).0, [other.as_str()], "the API server would refuse it");
    plan.metadata.finalizers = Some(vec![ours.clone()]);
    assert_eq!(held(&plan), (vec![ours], Vec::new()));
}

#[test]
fn a_node_has_the_time_to_go_back_from_when_it_is_told() {
    let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(1_800_000_000).unwrap());
    let order = Revert { cause: RollbackCause::ClusterGate, message: "late".into() };
    let reverted = |deadline: Option<Timestamp>, at| {
        let mut spec = in_turn();
        spec.disruption.as_mut().unwrap().deadline = deadline.map(Time);
        let spec = after(&spec, &policy(), &Action::Revert { order: order.clone(), at });
        assert_eq!((spec.target, &spec.revert), (Some(Target::Reverted), &Some(order.clone())));
        spec.disruption.unwrap().deadline
    };
    assert_eq!(reverted(None, late), Some(Time(late)));
    assert_eq!(reverted(Some(early), late), Some(Time(late)));
    assert_eq!(reverted(Some(late), early), Some(Time(late)));
}

#[test]
fn the_end_of_a_turn_keeps_the_order() {
    let mut spec = in_turn();
    spec.target = Some(Target::Committed);
    let (since, until) = (Time(Timestamp::UNIX_EPOCH), Time(Timestamp::UNIX_EPOCH));
    let turn = LastTurn {
        plan_id: "p".into(),
        since,
        until,
        outcome: TurnOutcome::Updated,
        reboot_took_seconds: None,
    };
    let spec = after(&spec, &policy(), &Action::EndDisruption(turn.clone()));
    assert_eq!((spec.disruption.clone(), spec.target), (None, Some(Target::Committed)));
    let action = Action::OrderStage { plan_id: "q".into(), image: IMAGE.into(), at: Timestamp::UNIX_EPOCH };
    assert_eq!(after(&spec, &policy(), &action).last_turn, Some(turn), "what it took is known for the next");
}
