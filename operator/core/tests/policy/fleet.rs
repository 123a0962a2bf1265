//! Nodes and policies to decide on.

use evenkeel_crds::{
    ManagedOSImageSpec,
    condition::Time,
    node_plan::{
        Booted, Disruption, HostFacts, LastTurn, NodePlanStatus, Phase, RollbackCause, RolledBack, SlotState,
        SlotStatus, Target, TurnOutcome,
    },
};
use evenkeel_operator_core::{
    Action, Decision, NodeSeen, PlanSeen, Policy, Snapshot, check, gates::Departure, plan,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub const OLD: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
pub const NEW: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

pub fn image(digest: &str) -> String {
    format!("registry.example/os@{digest}")
}

/// A policy with these fields of `rollout`.
pub fn policy(rollout: &Value) -> Policy {
    let spec: ManagedOSImageSpec =
        serde_json::from_value(json!({ "osImage": "registry.example/os:1", "rollout": rollout })).unwrap();
    Policy::new("os", "0a1b2c3d-uid", &spec, Some(&image(NEW))).unwrap()
}

/// A Friday, at eight in the morning.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_mins(count)
}

/// A node whose agent has reported and that was ordered nothing.
pub fn node() -> NodeSeen {
    let slot =
        |name: &str| SlotStatus { name: name.into(), state: SlotState::Complete, ..SlotStatus::default() };
    let status = NodePlanStatus {
        host: Some(HostFacts { manageable: true, ..HostFacts::default() }),
        booted: Some(Booted {
            slot: "a".into(),
            digest: OLD.into(),
            boot_id: "b1".into(),
            ..Booted::default()
        }),
        slots: vec![slot("a"), slot("b")],
        ..NodePlanStatus::default()
    };
    let plan = Some(PlanSeen { status: status.into(), ..PlanSeen::default() });
    NodeSeen { selected: true, ready: true, boot_id: "b1".into(), plan, ..NodeSeen::default() }
}

/// A node that was ordered so far, and whose agent is in this phase of it.
pub fn ordered(target: Target, phase: Phase) -> NodeSeen {
    let mut node = node();
    let policy = policy(&json!({}));
    let plan = node.plan.as_mut().unwrap();
    plan.spec.plan_id = Some(policy.plan_id(1));
    plan.spec.image = Some(image(NEW));
    plan.spec.target = Some(target);
    plan.spec.commit_deadline_seconds = Some(policy.reboot.commit_deadline_seconds);
    plan.spec.ordered_at = Some(Time(now() - minutes(30)));
    plan.status.plan_id.clone_from(&plan.spec.plan_id);
    plan.status.phase = phase;
    node
}

pub fn staged() -> NodeSeen {
    ordered(Target::Staged, Phase::Staged)
}

/// A node that took its turn, of so many minutes, and runs the image.
pub fn updated(took: i64) -> NodeSeen {
    let mut node = ordered(Target::Committed, Phase::Committed);
    let plan = node.plan.as_mut().unwrap();
    plan.status.booted.as_mut().unwrap().digest = NEW.into();
    plan.spec.last_turn = Some(LastTurn {
        plan_id: plan.spec.plan_id.clone().unwrap(),
        since: Time(now() - minutes(took)),
        until: Time(now()),
        outcome: TurnOutcome::Updated,
        reboot_took_seconds: Some(took * 60),
    });
    node
}

/// A node that came back from the image, so many minutes ago; it refuses it from now on if the image was to blame.
pub fn failed(cause: RollbackCause, ago: i64) -> NodeSeen {
    let mut node = ordered(Target::Reverted, Phase::RolledBack);
    let plan = node.plan.as_mut().unwrap();
    plan.status.rolled_back =
        Some(RolledBack { cause, message: "it hung".into(), at: Time(now() - minutes(ago)) });
    if !matches!(cause, RollbackCause::User | RollbackCause::Rollout | RollbackCause::ClusterUnreachable) {
        plan.status.bad_digests.push(NEW.into());
    }
    plan.spec.last_turn = Some(LastTurn {
        plan_id: plan.spec.plan_id.clone().unwrap(),
        since: Time(now() - minutes(ago + 5)),
        until: Time(now() - minutes(ago)),
        outcome: TurnOutcome::Failed,
        reboot_took_seconds: None,
    });
    node
}

/// A node in its turn, cordoned by us, since so many minutes.
pub fn in_turn(target: Target, phase: Phase, ago: i64) -> NodeSeen {
    let mut node = ordered(target, phase);
    node.unschedulable = true;
    node.cordoned_by = Some("os".into());
    let since = now() - minutes(ago);
    node.plan.as_mut().unwrap().spec.disruption = Some(Disruption {
        since: Time(since),
        found_cordoned: false,
        boot_id_before: "b1".into(),
        draining_since: None,
        drained_at: None,
        deadline: (target > Target::Staged).then(|| Time(since + minutes(15))),
        healthy_since: None,
        attempt: 1,
        going_back: false,
        live: false,
        reset: None,
    });
    node
}

pub fn snapshot(nodes: &[(&str, NodeSeen)]) -> Snapshot {
    let nodes = nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
    Snapshot { nodes, ..Snapshot::default() }
}

/// What is decided, when every node of which nobody has asked may leave service; the checker looks at it too.
pub fn decide_at(policy: &Policy, snapshot: &Snapshot, now: Timestamp) -> Decision {
    let mut snapshot = snapshot.clone();
    for node in snapshot.nodes.values_mut() {
        if node.checks.departure == Departure::NotAsked {
            node.checks.departure = Departure::Free { at: now };
        }
    }
    let decision = plan(policy, &snapshot, now);
    assert_eq!(check::violations(policy, &snapshot, now, &decision.actions), Vec::<String>::new());
    decision
}

pub fn decide(policy: &Policy, nodes: &[(&str, NodeSeen)]) -> Decision {
    decide_at(policy, &snapshot(nodes), now())
}

/// The nodes whose turn begins.
pub fn started(decision: &Decision) -> Vec<&str> {
    let begins = |(name, action): &'_ &(String, Action)| {
        let _ = name;
        matches!(action, Action::BeginDisruption(_))
    };
    decision.actions.iter().filter(begins).map(|(name, _)| name.as_str()).collect()
}

pub fn state(decision: &Decision, name: &str) -> String {
    decision.report.nodes[name].to_string()
}

pub fn action(decision: &Decision, name: &str) -> Option<Action> {
    decision.actions.iter().find(|(node, _)| node == name).map(|(_, action)| action.clone())
}
