//! Machines that shall begin anew: their turns are handed out last, and as those for an image are, but for what is about
//! the image.

use evenkeel_crds::node_plan::Disruption;
use jiff::Timestamp;

use super::{Turns, record, told_to_wait, window};
use crate::{
    plan::{Action, Decision, queue::ordered_attempt},
    report::{Hold, NodeState},
    snapshot::{NodeSeen, Snapshot},
};

impl<'a> Turns<'a> {
    /// Begins what may be begun. A node that has something else before it comes later.
    pub(super) fn begin_resets(&mut self, snapshot: &'a Snapshot, now: Timestamp, decision: &mut Decision) {
        // What they take of the budget is seen in the next look.
        let goes_back =
            |action: &Action| matches!(action, Action::BeginDisruption(record) if record.going_back);
        if decision.actions.iter().any(|(_, action)| goes_back(action)) {
            return;
        }
        for (name, node) in &snapshot.nodes {
            let Some(wipe) = node.reset.filter(|_| is_settled(decision.report.nodes.get(name))) else {
                continue;
            };
            let only_member = wipe.state && snapshot.etcd.len() == 1 && snapshot.etcd.contains_key(name);
            let hold = only_member.then_some(Hold::Quorum { ready: 0, needed: 1 });
            if let Some(hold) = hold.or_else(|| self.reset_hold(name, node, now, decision)) {
                decision.say(name, NodeState::WaitsToReset(hold));
                continue;
            }
            self.take_place(name, node);
            let attempt = ordered_attempt(self.policy, node).unwrap_or(1);
            let record = Disruption { reset: Some(wipe), live: false, ..record(node, attempt, false, now) };
            decision.act(name, NodeState::Starting, Action::BeginDisruption(record));
        }
    }

    /// What keeps it from its turn. That the image failed elsewhere does not, and a node that is not Ready may be what needs
    /// it most.
    fn reset_hold(
        &mut self,
        name: &'a str,
        node: &'a NodeSeen,
        now: Timestamp,
        decision: &mut Decision,
    ) -> Option<Hold> {
        told_to_wait(self.policy, decision)
            .or_else(|| window(self.policy, self.fleet, now, decision))
            .or_else(|| self.budget.hold(name, node))
            .or_else(|| self.hold_departure(name, node, now, decision))
    }
}

/// Whether nothing else is under way with the node, or about to be.
fn is_settled(state: Option<&NodeState>) -> bool {
    matches!(
        state,
        Some(NodeState::Updated | NodeState::Failed(_) | NodeState::TakenBack | NodeState::BelowMinimum(_))
    )
}
