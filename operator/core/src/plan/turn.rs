//! A node in its turn, and all that its next step is decided by.

use evenkeel_crds::node_plan::{Disruption, Revert, RollbackCause};
use jiff::Timestamp;

use super::{Action, Decision, fleet::Fleet};
use crate::{
    policy::Policy,
    report::NodeState,
    snapshot::{NodeSeen, PlanSeen},
};

/// A node in its turn.
pub struct Turn<'a> {
    pub policy: &'a Policy,
    pub fleet: &'a Fleet<'a>,
    pub name: &'a str,
    pub node: &'a NodeSeen,
    /// The node's plan.
    pub plan: &'a PlanSeen,
    /// What was written down of the turn.
    pub record: &'a Disruption,
    pub now: Timestamp,
}

impl<'a> Turn<'a> {
    /// The turn of a node that has one.
    pub fn of(
        policy: &'a Policy,
        fleet: &'a Fleet<'a>,
        name: &'a str,
        node: &'a NodeSeen,
        now: Timestamp,
    ) -> Option<Self> {
        let plan = node.plan.as_ref()?;
        let record = plan.spec.disruption.as_ref()?;
        Some(Self { policy, fleet, name, node, plan, record, now })
    }

    /// Says where the node is.
    pub fn say(&self, state: NodeState, decision: &mut Decision) {
        decision.say(self.name, state);
    }

    /// That a node is lost is said instead of what it was told.
    pub fn say_unless_lost(&self, state: NodeState, decision: &mut Decision) {
        if !decision.report.nodes.contains_key(self.name) {
            decision.say(self.name, state);
        }
    }

    /// Says where the node is, and does something to it.
    pub fn act(&self, state: NodeState, action: Action, decision: &mut Decision) {
        decision.act(self.name, state, action);
    }

    /// Orders the node back, because of what the cluster sees.
    pub fn revert(&self, message: String, decision: &mut Decision) {
        self.revert_for(RollbackCause::ClusterGate, message, decision);
    }

    /// Orders the node back.
    pub fn revert_for(&self, cause: RollbackCause, message: String, decision: &mut Decision) {
        let state = NodeState::Overdue(message.clone());
        if self.record.reset.is_some() {
            // What runs was kept, and stays.
            return self.act(state, Action::ForgetReset { failed: Some(message) }, decision);
        }
        self.act(state, Action::Revert { order: Revert { cause, message }, at: self.now }, decision);
    }

    /// Says that the node was told to go back.
    pub fn say_reverting(&self, decision: &mut Decision) {
        let why = self.plan.spec.revert.as_ref().map(|revert| revert.message.clone()).unwrap_or_default();
        self.say_unless_lost(NodeState::Reverting(why), decision);
    }
}
