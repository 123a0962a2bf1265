//! What was seen of the fleet, at one moment, possibly already old.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use evenkeel_crds::node_plan::{Disruption, NodePlanSpec, NodePlanStatus, Phase, Wipe};
use jiff::Timestamp;

use crate::{
    drain::DrainSeen,
    gates::{Departure, GateSeen},
    hooks::HookSeen,
};

/// The nodes that the image selects, and those that it no longer selects but has not let go of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By name.
    pub nodes: BTreeMap<String, NodeSeen>,
    /// Control-plane nodes of no concern to this image that are unavailable: they hold back ours all the same.
    pub other_controllers_down: BTreeSet<String>,
    /// Nodes with a member of etcd, where its pods can be seen, and whether that member is ready.
    pub etcd: BTreeMap<String, bool>,
}

/// One node.
// Each flag is a fact of its own that another writer sets; together they are no state machine.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSeen {
    /// Whether the Node object is gone, and only its plan is left.
    pub gone: bool,
    /// Whether the image's selector matches.
    pub selected: bool,
    /// Whether it carries the control-plane role.
    pub control_plane: bool,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// Whether it is cordoned, by whomever.
    pub unschedulable: bool,
    /// Name of the image whose rollout cordoned it.
    pub cordoned_by: Option<String>,
    /// The kernel's boot ID, as the kubelet reports it.
    pub boot_id: String,
    /// Its conditions that gates ask for: type to status.
    pub conditions: BTreeMap<String, String>,
    /// Its plan, if this image object has it.
    pub plan: Option<PlanSeen>,
    /// Whether somebody has deleted that plan; it goes when the node's turn ends.
    pub plan_deleted: bool,
    /// How far it is drained; looked at only for nodes whose turn it is.
    pub drain: DrainSeen,
    /// What else was asked of the cluster about it.
    pub checks: Checks,
    /// Name of the image object that has this node instead: an older one that selects it too, or one that has not let
    /// go of it yet.
    pub claimed_by_other: Option<String>,
    /// The value of the policy's topology label; empty without one.
    pub domain: String,
    /// What its annotation says of its place in the order; the highest comes first.
    pub weight: i32,
    /// When it joined.
    pub created: Option<Timestamp>,
    /// Whether this operator runs on it.
    pub runs_operator: bool,
    /// The first of the policy's steps whose selector matches it, from 0.
    pub step: Option<usize>,
    /// What somebody wants its machine to lose.
    pub reset: Option<Wipe>,
}

/// A node's plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSeen {
    /// The operator's order.
    pub spec: Shared<NodePlanSpec>,
    /// The agent's account.
    pub status: Shared<NodePlanStatus>,
}

/// What a snapshot shares with those who saw it: a look at a large fleet would spend most of its time on copies that nobody
/// changes. Who does change it has one of his own from then on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

/// What was asked of the cluster about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Whether it may leave service; asked for nodes that the last decision named.
    pub departure: Departure,
    /// The gates of a node in its turn, but for those that its own conditions answer.
    pub gates: Vec<GateSeen>,
    /// The hooks of a node in its turn that were run.
    pub hooks: Vec<HookSeen>,
    /// Whether it has the taint that makes the scheduler prefer others.
    pub avoided: bool,
}

impl NodeSeen {
    /// The record of a disruption that is under way.
    pub fn disruption(&self) -> Option<&Disruption> {
        self.plan.as_ref()?.spec.disruption.as_ref()
    }

    /// Where the current order stands, as the agent says; `Idle` while it has not spoken of this order.
    pub fn phase(&self) -> Phase {
        let Some(plan) = &self.plan else { return Phase::Idle };
        if plan.spec.plan_id.is_some() && plan.spec.plan_id == plan.status.plan_id {
            plan.status.phase
        } else {
            Phase::Idle
        }
    }

    /// Whether the host was not installed in a way that could be upgraded.
    pub fn unmanageable(&self) -> bool {
        let host = self.plan.as_ref().and_then(|plan| plan.status.host.as_ref());
        host.is_some_and(|host| !host.manageable)
    }

    /// The error that the agent has with the current order, if it has one.
    pub fn trouble(&self) -> Option<&str> {
        let plan = self.plan.as_ref().filter(|plan| plan.spec.plan_id == plan.status.plan_id)?;
        plan.status.error.as_ref().map(|error| error.message.as_str())
    }

    /// Whether the image object has it and may give it orders.
    pub fn ours(&self) -> bool {
        self.selected && !self.gone && self.claimed_by_other.is_none()
    }

    /// Whether what is staged there needs no reboot, and nothing else takes it out of service.
    pub fn stays_in_service(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.status.live) && self.reset.is_none()
    }

    /// Whether it serves workloads and nobody is about to change that.
    pub fn available(&self) -> bool {
        !self.gone && self.ready && !self.unschedulable && self.disruption().is_none()
    }
}
