//! What the planner does about single nodes that something special is true of.

use evenkeel_crds::{
    ManagedOSImageSpec,
    condition::Time,
    managed_os_image::Rejected,
    node_plan::{
        Booted, Disruption, HostFacts, NodePlanSpec, NodePlanStatus, Phase, PlanError, Revert, RollbackCause,
        RolledBack, Target,
    },
};
use evenkeel_operator_core::{
    Action, Checks, Decision, NodeSeen, NodeState, PlanSeen, Policy, Snapshot, check, gates::Departure, plan,
    report::Hold,
};
use jiff::{SignedDuration, Timestamp};

const OLD: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const NEW: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn image(digest: &str) -> String {
    format!("registry.example/os@{digest}")
}

fn policy() -> Policy {
    Policy::new("os", "0a1b2c3d-uid", &ManagedOSImageSpec::default(), Some(&image(NEW))).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// What is known of a node that may leave service.
fn free() -> Checks {
    Checks { departure: Departure::Free { at: now() }, ..Checks::default() }
}

/// A node whose agent has reported and that was ordered nothing.
fn node() -> NodeSeen {
    let status = NodePlanStatus {
        host: Some(HostFacts { manageable: true, ..HostFacts::default() }),
        booted: Some(Booted {
            slot: "a".into(),
            digest: OLD.into(),
            version: None,
            boot_id: "b1".into(),
            host_checks_passed: true,
        }),
        ..NodePlanStatus::default()
    };
    NodeSeen {
        selected: true,
        ready: true,
        boot_id: "b1".into(),
        plan: Some(PlanSeen { status: status.into(), ..PlanSeen::default() }),
        checks: free(),
        ..NodeSeen::default()
    }
}

/// A node that was ordered so far, and whose agent is in this phase of it.
fn ordered(target: Target, phase: Phase) -> NodeSeen {
    let mut node = node();
    let plan = node.plan.as_mut().unwrap();
    plan.spec.plan_id = Some(policy().plan_id(1));
    plan.spec.image = Some(image(NEW));
    plan.spec.target = Some(target);
    plan.spec.commit_deadline_seconds = Some(policy().reboot.commit_deadline_seconds);
    plan.status.plan_id.clone_from(&plan.spec.plan_id);
    plan.status.phase = phase;
    node
}

/// The same, in its turn and cordoned by us.
fn in_turn(target: Target, phase: Phase) -> NodeSeen {
    let mut node = ordered(target, phase);
    node.unschedulable = true;
    node.cordoned_by = Some("os".into());
    node.plan.as_mut().unwrap().spec.disruption = Some(Disruption {
        since: Time(now()),
        found_cordoned: false,
        boot_id_before: "b1".into(),
        draining_since: None,
        drained_at: None,
        deadline: (target > Target::Staged).then(|| Time(now() + SignedDuration::from_mins(15))),
        healthy_since: None,
        attempt: 1,
        going_back: false,
        live: false,
        reset: None,
    });
    node
}

fn status(node: &mut NodeSeen) -> &mut NodePlanStatus {
    &mut node.plan.as_mut().unwrap().status
}

fn decide(policy: &Policy, nodes: &[(&str, NodeSeen)], now: Timestamp) -> Decision {
    let nodes = nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
    let snapshot = Snapshot { nodes, ..Snapshot::default() };
    let decision = plan(policy, &snapshot, now);
    assert_eq!(check::violations(policy, &snapshot, now, &decision.actions), Vec::<String>::new());
    decision
}

fn action(decision: &Decision, name: &str) -> Option<Action> {
    decision.actions.iter().find(|(node, _)| node == name).map(|(_, action)| action.clone())
}

/// A node on which staging ended in an error that has nothing to do with the image.
fn staging_failed() -> NodeSeen {
    let mut node = ordered(Target::Staged, Phase::Failed);
    let message = "the boot partition is full".into();
    status(&mut node).error = Some(PlanError { reason: "EspFull".into(), message, retryable: false });
    node
}

#[test]
fn deleting_the_plan_is_how_a_person_says_try_again() {
    let failed = staging_failed();
    let mut policy = policy();
    let decision = decide(&policy, &[("n1", failed.clone()), ("n2", node())], now());
    assert!(decision.actions.is_empty(), "{:?}", decision.actions);
    let stopped = decision.report.stopped.unwrap();
    assert!(stopped.contains("kubectl delete nodeplan n1"), "{stopped}");
    policy.rejected = decision.report.rejected;

    // The plan is gone, and what it told of is not forgotten while the agent has not spoken again.
    let mut silent = node();
    silent.plan = Some(PlanSeen::default());
    let decision = decide(&policy, &[("n1", silent), ("n2", node())], now());
    assert_eq!(action(&decision, "n2"), None);
    assert!(decision.report.stopped.is_some());

    // The agent reports on the new plan, and still has its first attempt in mind.
    let mut again = failed;
    again.plan.as_mut().unwrap().spec = NodePlanSpec::default().into();
    let decision = decide(&policy, &[("n1", again), ("n2", node())], now());
    let Some(Action::OrderStage { plan_id, .. }) = action(&decision, "n1") else { panic!("{decision:?}") };
    assert_eq!(plan_id, policy.plan_id(2));
    assert_eq!((decision.report.stopped, decision.report.rejected), (None, None));
}

#[test]
fn a_digest_that_did_not_boot_stays_refused_whatever_is_deleted() {
    let mut back = ordered(Target::Booted, Phase::RolledBack);
    status(&mut back).bad_digests.push(NEW.into());
    status(&mut back).rolled_back =
        Some(RolledBack { cause: RollbackCause::Bootloader, message: "panic".into(), at: Time(now()) });
    let mut policy = policy();
    let decision = decide(&policy, &[("n1", back), ("n2", node())], now());
    let stopped = decision.report.stopped.unwrap();
    assert!(stopped.contains("Bootloader: panic") && stopped.contains("Publish a fixed image"), "{stopped}");
    policy.rejected = decision.report.rejected;
    // The plan, the node, or its place in the selection are gone.
    let mut gone = node();
    gone.gone = true;
    let mut left = node();
    (left.selected, left.plan) = (false, None);
    for n1 in [NodeSeen { plan: None, ..node() }, gone, left] {
        let decision = decide(&policy, &[("n1", n1), ("n2", node())], now());
        assert_eq!(action(&decision, "n2"), None, "{decision:?}");
    }
    // Another image is another matter.
    policy.image = Some(image("sha256:3333333333333333333333333333333333333333333333333333333333333333"));
    let decision = decide(&policy, &[("n1", node()), ("n2", node())], now());
    assert!(matches!(action(&decision, "n1"), Some(Action::OrderStage { .. })), "{decision:?}");
}

#[test]
fn a_node_that_could_not_take_the_image_does_not_hold_the_others_once_it_left() {
    let mut policy = policy();
    policy.rejected = Some(Rejected {
        digest: NEW.into(),
        node: "n1".into(),
        message: "the disk is broken".into(),
        condemned: false,
    });
    let decision = decide(&policy, &[("n2", node())], now());
    assert!(matches!(action(&decision, "n2"), Some(Action::OrderStage { .. })), "{decision:?}");
}

#[test]
fn nothing_is_started_while_the_image_is_not_resolved_and_what_was_started_is_ended() {
    let policy = Policy { image: None, ..policy() };
    let nodes = [
        ("n1", node()),
        ("n2", ordered(Target::Staged, Phase::Staged)),
        ("n3", in_turn(Target::Staged, Phase::Staged)),
        ("n4", in_turn(Target::Booted, Phase::Rebooting)),
    ];
    let decision = decide(&policy, &nodes, now());
    assert_eq!(decision.report.nodes["n1"], NodeState::WaitsToStage(Hold::Unresolved));
    assert_eq!(decision.report.nodes["n2"], NodeState::WaitsToStage(Hold::Unresolved));
    assert_eq!(action(&decision, "n3"), Some(Action::Uncordon));
    assert_eq!(decision.report.nodes["n4"], NodeState::Rebooting);
}

#[test]
fn a_node_that_is_gone_frees_its_place() {
    let mut gone = in_turn(Target::Booted, Phase::Rebooting);
    gone.gone = true;
    let nodes = [("n1", gone), ("n2", ordered(Target::Staged, Phase::Staged))];
    let decision = decide(&policy(), &nodes, now());
    assert_eq!(action(&decision, "n1"), Some(Action::ReleasePlan));
    assert!(matches!(action(&decision, "n2"), Some(Action::BeginDisruption(_))), "{decision:?}");
}

#[test]
fn a_host_that_cannot_be_upgraded_is_named_and_stops_nobody() {
    let mut foreign = node();
    status(&mut foreign).host = Some(HostFacts { manageable: false, ..HostFacts::default() });
    let decision = decide(&policy(), &[("n1", foreign), ("n2", node())], now());
    assert_eq!(decision.report.nodes["n1"], NodeState::Unmanageable);
    assert!(matches!(action(&decision, "n2"), Some(Action::OrderStage { .. })), "{decision:?}");
    assert_eq!(decision.report.total(), 1);
}

#[test]
fn a_node_that_an_older_image_claims_is_let_go_of_in_order() {
    let claimed = |node: NodeSeen| NodeSeen { claimed_by_other: Some("older".into()), ..node };
    let nodes = [
        ("n1", claimed(ordered(Target::Staged, Phase::Staged))),
        ("n2", claimed(in_turn(Target::Staged, Phase::Staged))),
        ("n3", claimed(in_turn(Target::Booted, Phase::Rebooting))),
        ("n4", claimed(NodeSeen { plan: None, ..node() })),
    ];
    let decision = decide(&policy(), &nodes, now());
    assert_eq!(action(&decision, "n1"), Some(Action::ReleasePlan));
    assert_eq!(action(&decision, "n2"), Some(Action::Uncordon), "its reboot was not approved yet");
    assert_eq!(decision.report.nodes["n3"], NodeState::Rebooting, "what was started is finished");
    assert_eq!(decision.report.nodes["n4"], NodeState::ClaimedByOther("older".into()));
}

#[test]
fn new_pull_settings_reach_a_node_that_cannot_pull() {
    let mut retrying = ordered(Target::Staged, Phase::Staging);
    let message = "the registry does not speak TLS".into();
    status(&mut retrying).error = Some(PlanError { reason: "Tls".into(), message, retryable: true });
    let mut policy = policy();
    let decision = decide(&policy, &[("n1", retrying.clone())], now());
    assert!(matches!(decision.report.nodes["n1"], NodeState::Retrying(_)), "{decision:?}");
    assert_eq!(action(&decision, "n1"), None);
    policy.pull.plain_http = true;
    let decision = decide(&policy, &[("n1", retrying)], now());
    let Some(Action::OrderStage { plan_id, .. }) = action(&decision, "n1") else { panic!("{decision:?}") };
    assert_eq!(plan_id, policy.plan_id(1), "the attempt goes on");
}

#[test]
fn an_approval_that_ran_out_ends_the_attempt_and_quotes_the_agent() {
    let mut late = in_turn(Target::Booted, Phase::Staged);
    let message = "the approval to reboot ran out before it was used".into();
    status(&mut late).error = Some(PlanError { reason: "ApprovalExpired".into(), message, retryable: true });
    let decision = decide(&policy(), &[("n1", late.clone())], now());
    assert_eq!(action(&decision, "n1"), None, "the deadline is not over");
    let decision = decide(&policy(), &[("n1", late)], now() + SignedDuration::from_mins(16));
    let Some(Action::Revert { order: Revert { message, .. }, .. }) = action(&decision, "n1") else {
        panic!("{decision:?}")
    };
    assert!(message.contains("ran out before it was used"), "{message}");
}

#[test]
fn a_deletion_does_not_wait_for_a_machine_that_is_lost() {
    let mut policy = policy();
    policy.deleting = true;
    let mut lost = in_turn(Target::Reverted, Phase::Rebooting);
    lost.ready = false;
    let at = |minutes| decide(&policy, &[("n1", lost.clone())], now() + SignedDuration::from_mins(minutes));
    assert_eq!(action(&at(20), "n1"), None, "it may still come back");
    assert_eq!(at(20).report.wake_at, Some(now() + SignedDuration::from_mins(30)));
    assert_eq!(action(&at(31), "n1"), Some(Action::Uncordon));
}

#[test]
fn a_plan_that_was_deleted_ends_a_turn_before_the_reboot_and_that_of_a_machine_that_is_lost() {
    let deleted = |target, phase, minutes| {
        let mut node = in_turn(target, phase);
        (node.plan_deleted, node.ready) = (true, false);
        action(&decide(&policy(), &[("n1", node)], now() + SignedDuration::from_mins(minutes)), "n1")
    };
    assert_eq!(deleted(Target::Staged, Phase::Staged, 0), Some(Action::Uncordon));
    assert_eq!(deleted(Target::Booted, Phase::Trial, 0), None, "it is finished");
    assert_eq!(deleted(Target::Reverted, Phase::Rebooting, 20), None, "it may still come back");
    assert_eq!(deleted(Target::Reverted, Phase::Rebooting, 31), Some(Action::Uncordon));
}

#[test]
fn a_control_plane_node_waits_for_those_of_other_images() {
    let mut controller = ordered(Target::Staged, Phase::Staged);
    controller.control_plane = true;
    let snapshot = Snapshot {
        nodes: [("n1".to_owned(), controller)].into(),
        other_controllers_down: ["other".to_owned()].into(),
        ..Snapshot::default()
    };
    let decision = plan(&policy(), &snapshot, now());
    assert_eq!(decision.report.nodes["n1"], NodeState::WaitsToStart(Hold::ControlPlane("other".into())));
}

#[test]
fn a_machine_that_lost_its_memory_gets_a_new_attempt() {
    let mut lost = ordered(Target::Committed, Phase::Staged);
    lost.plan.as_mut().unwrap().status.booted.as_mut().unwrap().boot_id = "b9".into();
    let decision = decide(&policy(), &[("n1", lost)], now());
    let Some(Action::OrderStage { plan_id, .. }) = action(&decision, "n1") else { panic!("{decision:?}") };
    assert_eq!(plan_id, policy().plan_id(2), "the first one went as far as it could");
}

#[test]
fn a_node_that_may_not_leave_gives_its_place_to_the_next() {
    let held = |by: &str, again: i64| NodeSeen {
        checks: Checks {
            departure: Departure::Held { by: by.into(), again: now() + SignedDuration::from_secs(again) },
            ..Checks::default()
        },
        ..ordered(Target::Staged, Phase::Staged)
    };
    // The image is not proven yet, and the budget is one: the second node is not even staged.
    let decision = decide(&policy(), &[("n1", held("budget web", 30)), ("n2", node())], now());
    assert_eq!(decision.report.nodes["n1"], NodeState::WaitsToStart(Hold::Departure("budget web".into())));
    assert!(matches!(action(&decision, "n2"), Some(Action::OrderStage { .. })), "{decision:?}");
    assert!(decision.report.summary().contains("budget web"), "{}", decision.report.summary());
    let ready = ordered(Target::Staged, Phase::Staged);
    let decision = decide(&policy(), &[("n1", held("budget web", 30)), ("n2", ready.clone())], now());
    assert!(matches!(action(&decision, "n2"), Some(Action::BeginDisruption(_))), "{decision:?}");
    // It is asked again, and its place is kept until the answer is there.
    let decision = decide(&policy(), &[("n1", held("budget web", -1)), ("n2", ready)], now());
    assert!(decision.report.asks.contains("n1") && decision.actions.is_empty(), "{decision:?}");
    assert_eq!(decision.report.nodes["n1"], NodeState::WaitsToStart(Hold::Departure("budget web".into())));
}

#[test]
fn what_was_found_out_long_ago_is_found_out_again() {
    let decision = decide(&policy(), &[("n1", ordered(Target::Staged, Phase::Staged))], now());
    assert!(matches!(action(&decision, "n1"), Some(Action::BeginDisruption(_))), "{decision:?}");
    let later = now() + SignedDuration::from_mins(2);
    let decision = decide(&policy(), &[("n1", ordered(Target::Staged, Phase::Staged))], later);
    assert!(decision.report.asks.contains("n1") && decision.actions.is_empty(), "{decision:?}");
}
