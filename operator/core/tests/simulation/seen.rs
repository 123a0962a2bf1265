//! What the schedules came across: a simulation that never sees a lost node proves nothing about one.

use std::collections::BTreeMap;

use evenkeel_operator_core::{
    Action, Decision, NodeState,
    report::{Hold, StepWait},
};

/// How often what came up.
#[derive(Default)]
pub struct Seen(BTreeMap<&'static str, u64>);

/// What has to come up in a thousand schedules.
const EXPECTED: [&str; 40] = [
    "approval",
    "budget",
    "clock jumped",
    "configured",
    "conflict",
    "conflict of the status",
    "control plane",
    "denied",
    "domain",
    "domain budget",
    "dry run",
    "flapping",
    "goes back",
    "halted",
    "held back",
    "kept without a reboot",
    "lost",
    "lost answer",
    "machine replaced",
    "more attempts",
    "moved",
    "operator killed",
    "operator's node",
    "paused",
    "pods that stay",
    "quorum",
    "recovery",
    "reset",
    "reset wanted",
    "reverted",
    "silent agent",
    "soak",
    "step",
    "stopped",
    "stray turn",
    "taken back",
    "too short",
    "two leaders",
    "updated",
    "window",
];

/// What need not come up in schedules that end with a deletion: it comes late in a rollout.
const LATE: [&str; 6] = ["approval", "goes back", "lost", "pods that stay", "reset", "taken back"];

impl Seen {
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_insert(0) += 1;
    }

    pub fn merge(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_insert(0) += count;
        }
    }

    /// Takes note of one look.
    pub fn note(&mut self, decision: &Decision) {
        let mut add = |what| self.add(what);
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

    /// Shows what came up, and checks that nothing is missing after enough schedules, which went on to the end or not.
    pub fn show(&self, schedules: u64, to_the_end: bool) {
        let counts: Vec<String> = self.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
        println!("came up, once for each node and look: {}", counts.join(", "));
        let missing: Vec<&&str> = EXPECTED
            .iter()
            .filter(|what| to_the_end || !LATE.contains(what))
            .filter(|what| !self.0.contains_key(**what))
            .collect();
        assert!(
            schedules < 1000 || missing.is_empty(),
            "in {schedules} schedules these never came up: {missing:?}"
        );
    }
}
