//! One tick: nodes whose turn began come first, then free turns are handed out in order.

mod avoid;
mod fleet;
mod flight;
mod leave;
mod queue;
mod trial;

use evenkeel_crds::node_plan::{Disruption, Revert};
use jiff::Timestamp;

use crate::{
    policy::Policy,
    report::{NodeState, Report},
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
    },
    /// Write down that the node's turn begins.
    BeginDisruption(Disruption),
    /// Cordon the node, in our name.
    Cordon,
    /// Ask the pods to leave.
    Evict,
    /// Delete the pods that refuse to leave.
    ForceOut,
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
    Revert(Revert),
    /// Lift our cordon.
    Uncordon,
    /// Write down that the node's turn is over.
    EndDisruption,
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
    let fleet = fleet::Fleet::of(policy, snapshot);
    decision.report.deleting = policy.deleting;
    decision.report.stopped.clone_from(&fleet.stopped);
    decision.report.rejected.clone_from(&fleet.rejected);
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
        if node.disruption().is_some() {
            flight::advance(policy, &fleet, name, node, now, &mut decision);
        } else {
            queue::settle(policy, name, node, &mut decision);
        }
    }
    if !policy.deleting {
        queue::hand_out(policy, &fleet, snapshot, now, &mut decision);
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
