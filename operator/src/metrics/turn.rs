//! What nodes' turns take, and what they come to.

use std::time::Duration;

use evenkeel_crds::{managed_os_image::Reboot, node_plan::Phase};
use evenkeel_operator_core::{Action, NodeSeen};
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use super::word;

/// Seconds: from a drain without pods to a node whose pods take all night.
const STEP: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10_800.0, 43_200.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct End {
    result: &'static str,
    cause: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Step {
    step: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Source {
    what: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Done {
    action: String,
}

#[derive(Clone, Debug)]
struct Steps;

impl MetricConstructor<Histogram> for Steps {
    fn new_metric(&self) -> Histogram {
        Histogram::new(STEP)
    }
}

/// What nodes' turns take, and what they come to.
pub struct Turns {
    ends: Family<End, Counter>,
    steps: Family<Step, Histogram, Steps>,
    bytes: Family<Source, Counter>,
    actions: Family<Done, Counter>,
}

impl Turns {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let it = Self {
            ends: Family::default(),
            steps: Family::new_with_constructor(Steps),
            bytes: Family::default(),
            actions: Family::default(),
        };
        registry.register("turns", "Turns of nodes that ended, by what came of them", it.ends.clone());
        let help = "How long the steps of nodes' turns took";
        registry.register_with_unit("step", help, Unit::Seconds, it.steps.clone());
        let help = "Bytes that staging took, of nodes whose turn began";
        registry.register_with_unit("staging", help, Unit::Bytes, it.bytes.clone());
        registry.register("actions", "What was done to nodes", it.actions.clone());
        it
    }

    /// Something was done to a node, which was seen so before.
    pub fn did(&self, action: &Action, node: Option<&NodeSeen>, reboot: &Reboot, now: Timestamp) {
        self.actions.get_or_create(&Done { action: word(action) }).inc();
        let Some(node) = node else { return };
        let since = node.disruption().map(|record| record.since.0);
        // The deadline is written with the approval, so long after it.
        let limit = jiff::SignedDuration::from_secs(reboot.deadline_seconds);
        let approved =
            node.disruption().and_then(|record| record.deadline).map(|deadline| deadline.0 - limit);
        match action {
            Action::BeginDisruption(_) => self.staged(node),
            Action::ApproveReboot { .. } => self.took("Drain", since, now),
            Action::MarkHealthy(Some(_)) => self.took("Reboot", approved, now),
            Action::Commit => self.took("Trial", approved, now),
            Action::EndDisruption(_) => {
                self.took("Turn", since, now);
                self.ends.get_or_create(&end(node)).inc();
            }
            _ => {}
        }
    }

    fn took(&self, step: &'static str, begun: Option<Timestamp>, now: Timestamp) {
        if let Some(took) = begun.and_then(|begun| Duration::try_from(now.duration_since(begun)).ok()) {
            self.steps.get_or_create(&Step { step }).observe(took.as_secs_f64());
        }
    }

    fn staged(&self, node: &NodeSeen) {
        let Some(cost) = node.plan.as_ref().and_then(|plan| plan.status.staging.as_ref()) else { return };
        if let Ok(milliseconds) = u64::try_from(cost.milliseconds) {
            let took = Duration::from_millis(milliseconds);
            self.steps.get_or_create(&Step { step: "Staging" }).observe(took.as_secs_f64());
        }
        for (what, bytes) in [
            ("Downloaded", cost.bytes_downloaded),
            ("Copied", cost.bytes_copied),
            ("Written", cost.bytes_written),
            ("Skipped", cost.bytes_skipped),
        ] {
            // What agents say is not ours: nothing below zero is counted.
            self.bytes.get_or_create(&Source { what }).inc_by(u64::try_from(bytes).unwrap_or(0));
        }
    }
}

fn end(node: &NodeSeen) -> End {
    let result = match node.phase() {
        Phase::Committed => "Updated",
        Phase::RolledBack => "RolledBack",
        Phase::Failed => "Failed",
        _ => "Released",
    };
    let back = node.plan.as_ref().and_then(|plan| plan.status.rolled_back.as_ref());
    let cause = back.filter(|_| result == "RolledBack").map(|back| word(&back.cause));
    End { result, cause: cause.unwrap_or_default() }
}

#[cfg(test)]
pub(super) mod tests {
    use evenkeel_crds::{
        condition::Time,
        node_plan::{
            Disruption, LastTurn, NodePlanSpec, NodePlanStatus, RollbackCause, RolledBack, StagingCost,
            TurnOutcome,
        },
    };
    use evenkeel_operator_core::PlanSeen;

    use super::*;
    use crate::metrics::Metrics;

    /// A node that was told to reboot a minute ago, and came back to its old slot.
    pub fn a_node(now: Timestamp) -> NodeSeen {
        let ago = |seconds: i64| Time(now - jiff::SignedDuration::from_secs(seconds));
        let record = Disruption {
            since: ago(100),
            found_cordoned: false,
            boot_id_before: String::new(),
            draining_since: None,
            drained_at: None,
            // Approved a minute ago, with the default of 900 s to be Ready.
            deadline: Some(ago(60 - 900)),
            healthy_since: None,
            attempt: 1,
            going_back: false,
            live: false,
            reset: None,
        };
        let rolled_back =
            RolledBack { cause: RollbackCause::HostCheck, message: String::new(), at: Time(now) };
        let status = NodePlanStatus {
            plan_id: Some("p".into()),
            phase: Phase::RolledBack,
            rolled_back: Some(rolled_back),
            staging: Some(StagingCost { bytes_downloaded: 7, milliseconds: 2000, ..StagingCost::default() }),
            ..NodePlanStatus::default()
        };
        let spec =
            NodePlanSpec { plan_id: Some("p".into()), disruption: Some(record), ..NodePlanSpec::default() };
        NodeSeen {
            selected: true,
            ready: true,
            plan: Some(PlanSeen { spec: spec.into(), status: status.into() }),
            ..NodeSeen::default()
        }
    }

    pub fn begin(now: Timestamp) -> Action {
        Action::BeginDisruption(a_node(now).disruption().unwrap().clone())
    }

    pub fn finish(now: Timestamp) -> Action {
        let (since, until) = (Time(now), Time(now));
        Action::EndDisruption(LastTurn {
            plan_id: "p".into(),
            since,
            until,
            outcome: TurnOutcome::Failed,
            reboot_took_seconds: None,
        })
    }

    #[test]
    fn a_turn_is_counted_with_its_end_its_cause_and_its_times() {
        let metrics = Metrics::default();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let node = a_node(now);
        let deadline = now;
        for action in [
            begin(now),
            Action::ApproveReboot { deadline },
            Action::MarkHealthy(Some(now)),
            Action::MarkHealthy(None),
            finish(now),
        ] {
            metrics.turns().did(&action, Some(&node), &Reboot::default(), now);
        }
        let text = metrics.text();
        for line in [
            r#"evenkeel_turns_total{result="RolledBack",cause="HostCheck"} 1"#,
            r#"evenkeel_step_seconds_sum{step="Staging"} 2.0"#,
            r#"evenkeel_step_seconds_sum{step="Drain"} 100.0"#,
            r#"evenkeel_step_seconds_sum{step="Reboot"} 60.0"#,
            r#"evenkeel_step_seconds_count{step="Reboot"} 1"#,
            r#"evenkeel_step_seconds_sum{step="Turn"} 100.0"#,
            r#"evenkeel_staging_bytes_total{what="Downloaded"} 7"#,
            r#"evenkeel_actions_total{action="MarkHealthy"} 2"#,
        ] {
            assert!(text.lines().any(|has| has == line), "{line} is not in:\n{text}");
        }
    }
}
