//! One tick: nodes whose turn began come first, then free turns are handed out in order.

mod avoid;
mod budget;
mod failure;
mod fleet;
mod flight;
mod leave;
mod order;
mod preview;
mod queue;
mod recovery;
mod reset;
mod return_trip;
mod steps;
mod stuck;
mod take_back;
mod trial;
mod turn;
mod turns;
mod verdict;

use evenkeel_crds::{
    condition::Time,
    node_plan::{Disruption, LastTurn, RecoveryOrder, ResetOrder, Revert},
};
use jiff::Timestamp;

use crate::{
    policy::Policy,
    report::{self, NodeState, Report},
    snapshot::{self, Snapshot},
};

/// What to do to one node. Each is one write, safe to repeat, and the next is decided on what was then seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a plan without an order, so that the agent reports.
    EnsurePlan,
    /// Order the image staged.
    OrderStage {
        /// Identity of the attempt.
        plan_id: String,
        /// `repository@sha256:…`.
        image: String,
        /// When.
        at: Timestamp,
    },
    /// Write down that the node's turn begins.
    BeginDisruption(Disruption),
    /// Cordon the node, in our name.
    Cordon,
    /// Ask the pods to leave.
    Evict,
    /// Delete the pods that refuse to leave.
    ForceOut,
    /// Write down that the hooks before the drain are done, and its time begins.
    MarkDraining(Timestamp),
    /// Write down that the drain is done.
    MarkDrained(Timestamp),
    /// Run a hook, by its name.
    RunHook(String),
    /// Make the scheduler prefer other nodes, or no longer so.
    Avoid(bool),
    /// Approve the reboot; the same write sets the record's deadline.
    ApproveReboot {
        /// After this the approval is void, and the node must be Ready.
        deadline: Timestamp,
    },
    /// Write down since when the node is healthy, or that it is not.
    MarkHealthy(Option<Timestamp>),
    /// Order the image kept.
    Commit,
    /// Order the old slot back.
    Revert {
        /// Why.
        order: Revert,
        /// When: the node's time to be back is counted from then, if its deadline is not later.
        at: Timestamp,
    },
    /// Lift our cordon.
    Uncordon,
    /// Write down that the node's turn is over, and how it ended.
    EndDisruption(LastTurn),
    /// Order what the recovery slot shall hold, or that it stays as it is.
    OrderRecovery(Option<RecoveryOrder>),
    /// Order that the machine begins anew.
    OrderReset(ResetOrder),
    /// Take back what somebody wanted: it was done, or was not.
    ForgetReset {
        /// Why it was not.
        failed: Option<String>,
    },
    /// Write down that a turn for that is over.
    EndReset,
    /// Delete the plan of a node that is let go of.
    ReleasePlan,
}

/// What to do, and why not more.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Decision {
    /// Node name and action, at most one for each node.
    pub actions: Vec<(String, Action)>,
    /// Why each node is where it is.
    pub report: Report,
}

impl Decision {
    fn say(&mut self, node: &str, state: NodeState) {
        self.report.nodes.insert(node.to_owned(), state);
    }

    fn act(&mut self, node: &str, state: NodeState, action: Action) {
        self.say(node, state);
        self.actions.push((node.to_owned(), action));
    }

    fn wake(&mut self, at: Timestamp) {
        self.report.wake_at = Some(self.report.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// Decides one tick.
pub fn plan(policy: &Policy, snapshot: &Snapshot, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let fleet = fleet::Fleet::of(policy, snapshot, now);
    decision.report.deleting = policy.deleting;
    decision.report.stopped.clone_from(&fleet.verdict.stopped);
    decision.report.rejected.clone_from(&fleet.verdict.rejected);
    decision.report.denied.clone_from(&fleet.verdict.denied);
    decision.report.dry_run = policy.dry_run;
    decision.report.run_now = policy.run_now.clone().filter(|wish| now < wish.until.0);
    decision.report.takes = fleet.takes;
    decision.report.paused = policy.pause(now).map(|pause| {
        if let Some(until) = pause.until {
            decision.wake(until.0);
        }
        if pause.reason.is_empty() {
            pause.owner.clone()
        } else {
            format!("{} ({})", pause.owner, pause.reason)
        }
    });
    for (name, node) in &snapshot.nodes {
        match turn::Turn::of(policy, &fleet, name, node, now) {
            Some(turn) => flight::advance(&turn, &mut decision),
            None => queue::settle(policy, &fleet, name, node, now, &mut decision),
        }
    }
    decision.report.progress.clone_from(&policy.progress);
    if !policy.deleting {
        begin(policy, &fleet, snapshot, now, &mut decision);
    }
    avoid::mark(policy, snapshot, &mut decision);
    let held = |node: &snapshot::NodeSeen| {
        node.plan.is_some()
            || node.checks.avoided && !node.gone
            || node.cordoned_by.as_deref() == Some(policy.name.as_str())
    };
    decision.report.released = policy.deleting && !snapshot.nodes.values().any(held);
    decision
}

/// What is free is handed out.
fn begin(
    policy: &Policy,
    fleet: &fleet::Fleet,
    snapshot: &Snapshot,
    now: Timestamp,
    decision: &mut Decision,
) {
    let steps = steps::Steps::of(policy, snapshot, fleet, now);
    let (state, progress) = (steps.state.clone(), steps.progress.clone());
    take_back::hand_out(policy, fleet, snapshot, now, decision);
    turns::Turns::of(policy, fleet, snapshot, steps, now, decision).hand_out(snapshot, now, decision);
    recovery::hand_out(policy, snapshot, now, decision);
    if policy.dry_run {
        // No step is gone past, and none is waited for.
        decision.report.preview = Some(preview::of(policy, &fleet.failures, snapshot, now));
        return;
    }
    if let Some(report::StepState { waits: report::StepWait::Soak { until }, .. }) = state {
        decision.wake(until);
    }
    (decision.report.step, decision.report.progress) = (state, progress);
    let finished = decision.report.ended() && decision.report.total() > 0;
    if let Some(progress) = &mut decision.report.progress {
        progress.finished_at = finished.then(|| progress.finished_at.unwrap_or(Time(now)));
    }
}
