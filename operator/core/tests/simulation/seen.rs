//! What the schedules came across: a simulation that never sees a lost node proves nothing about one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use evenkeel_operator_core::{
    Action, Decision, NodeState,
    report::{Hold, StepWait},
};

static SEEN: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// What has to come up in a thousand schedules.
const EXPECTED: [&str; 23] = [
    "approval",
    "budget",
    "control plane",
    "denied",
    "domain",
    "domain budget",
    "dry run",
    "goes back",
    "halted",
    "held back",
    "lost",
    "more attempts",
    "operator's node",
    "paused",
    "quorum",
    "reverted",
    "soak",
    "step",
    "stopped",
    "taken back",
    "too short",
    "updated",
    "window",
];

/// Takes note of one look.
pub fn note(decision: &Decision) {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut add = |what| *seen.entry(what).or_insert(0) += 1;
    for (_, action) in &decision.actions {
        match action {
            Action::BeginDisruption(record) if record.going_back => add("goes back"),
            Action::BeginDisruption(_) => add("starts"),
            Action::OrderStage { plan_id, .. } if !plan_id.ends_with("-1") => add("more attempts"),
            Action::Revert { .. } => add("reverted"),
            _ => {}
        }
    }
    for state in decision.report.nodes.values() {
        match state {
            NodeState::Updated => add("updated"),
            NodeState::Lost(_) => add("lost"),
            NodeState::TakenBack => add("taken back"),
            NodeState::Halted(_) => add("halted"),
            NodeState::WaitsToStart(hold) | NodeState::WaitsToGoBack(hold) => add(match hold {
                Hold::Budget { .. } => "budget",
                Hold::DomainBudget { .. } => "domain budget",
                Hold::Domain(_) => "domain",
                Hold::ControlPlane(_) => "control plane",
                Hold::Quorum { .. } => "quorum",
                Hold::Window { .. } => "window",
                Hold::TooShort { .. } => "too short",
                Hold::OperatorsNode => "operator's node",
                Hold::Paused(_) => "paused",
                Hold::DryRun => "dry run",
                Hold::Departure(_) => "held back",
                Hold::Stopped(_) => "stopped",
                Hold::Step(step) => match step.waits {
                    StepWait::Soak { .. } => "soak",
                    StepWait::Approval { .. } => "approval",
                    _ => "step",
                },
                _ => "other",
            }),
            _ => {}
        }
    }
    if !decision.report.denied.is_empty() {
        add("denied");
    }
}

/// Shows what came up, and checks that nothing is missing after enough schedules.
pub fn show(schedules: u64) {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let counts: Vec<String> = seen.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("came up, once for each node and look: {}", counts.join(", "));
    let missing: Vec<&&str> = EXPECTED.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(
        schedules < 1000 || missing.is_empty(),
        "in {schedules} schedules these never came up: {missing:?}"
    );
}
