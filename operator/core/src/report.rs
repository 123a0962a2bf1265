//! Why each node is where it is: the typed answer that conditions, events and the command line render.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use evenkeel_crds::managed_os_image::Rejected;
use jiff::Timestamp;

use crate::snapshot::NodeSeen;

/// Where a node is, and why not further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It runs the image, committed.
    Updated,
    /// Another image object has it.
    ClaimedByOther(String),
    /// Its agent has not reported yet.
    AgentSilent,
    /// It waits for its turn to pull.
    WaitsToStage(Hold),
    /// It pulls and writes.
    Staging,
    /// It cannot pull or write at the moment, and tries again.
    Retrying(String),
    /// Its host was not installed in a way that could be upgraded.
    Unmanageable,
    /// It is staged and waits for its turn to reboot.
    WaitsToStart(Hold),
    /// Its turn began; it is being cordoned.
    Starting,
    /// Its pods are leaving.
    Draining {
        /// How many are still there.
        pods: usize,
        /// What keeps one from leaving.
        blocked_by: Option<String>,
        /// Whether its time is over.
        overdue: bool,
    },
    /// Its turn goes on once something has happened: a hook, a gate, a delay.
    Halted(String),
    /// It was told to reboot.
    Rebooting,
    /// It runs the image on trial and is not healthy yet.
    Unhealthy(String),
    /// It runs the image on trial and is healthy, for the soak time to pass.
    Soaking,
    /// It was told to keep the image.
    Committing,
    /// It was told to go back.
    Reverting(String),
    /// It is done and is being given back to the scheduler.
    Finishing,
    /// The image failed on it.
    Failed(String),
    /// It did not do in time what it was told.
    Overdue(String),
    /// It is let go of.
    Released,
}

/// What holds a node back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Somebody paused the rollout.
    Paused(String),
    /// The image failed on another node.
    Stopped(String),
    /// So many nodes as allowed are unavailable already.
    Budget {
        /// How many are unavailable.
        unavailable: usize,
        /// How many may be.
        budget: usize,
    },
    /// Another control-plane node is not available.
    ControlPlane(String),
    /// The node itself is not Ready.
    NotReady,
    /// The image's reference is not resolved.
    Unresolved,
    /// No node has proven the image yet.
    Unproven,
    /// It is being found out whether the node may leave service.
    Asking,
    /// It may not leave service: a `PodDisruptionBudget` or a gate, by name.
    Departure(String),
    /// Many nodes before it may not leave service.
    Behind,
    /// So many nodes as allowed are staging already.
    MaxStaging,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused(by) => write!(f, "paused by {by}"),
            Self::Stopped(node) => write!(f, "the rollout stopped because the image failed on {node}"),
            Self::Budget { unavailable, budget } => {
                write!(f, "{unavailable} of {budget} nodes that may be unavailable are")
            }
            Self::ControlPlane(node) => write!(f, "control-plane node {node} is not available"),
            Self::NotReady => f.write_str("the node is not Ready"),
            Self::Unresolved => f.write_str("the image is not resolved"),
            Self::Unproven => f.write_str("a first node has to prove the image"),
            Self::Asking => f.write_str("it is being found out whether it may leave service"),
            Self::Departure(by) => write!(f, "it may not leave service: {by}"),
            Self::Behind => f.write_str("many nodes before it may not leave service"),
            Self::MaxStaging => f.write_str("as many nodes as allowed are staging"),
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Updated => f.write_str("updated"),
            Self::ClaimedByOther(image) => write!(f, "belongs to ManagedOSImage {image}"),
            Self::AgentSilent => {
                f.write_str("waits for its agent's first report (does the agent's pod run there?)")
            }
            Self::WaitsToStage(hold) => write!(f, "waits to stage: {hold}"),
            Self::Staging => f.write_str("staging"),
            Self::Retrying(why) => write!(f, "cannot stage, tries again: {why}"),
            Self::Unmanageable => f.write_str("was not installed with Evenkeel and cannot be upgraded"),
            Self::WaitsToStart(hold) => write!(f, "staged, waits: {hold}"),
            Self::Starting => f.write_str("starting"),
            Self::Draining { pods, blocked_by, overdue } => {
                let late = if *overdue { " and overdue" } else { "" };
                write!(f, "draining{late}, pods left: {pods}")?;
                blocked_by.iter().try_for_each(|by| write!(f, ", blocked by {by}"))
            }
            Self::Halted(why) => write!(f, "waits in its turn: {why}"),
            Self::Rebooting => f.write_str("rebooting"),
            Self::Unhealthy(why) => write!(f, "on trial, not healthy: {why}"),
            Self::Soaking => f.write_str("on trial, soaking"),
            Self::Committing => f.write_str("committing"),
            Self::Reverting(why) => write!(f, "going back: {why}"),
            Self::Finishing => f.write_str("finishing"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Overdue(what) => write!(f, "overdue: {what}"),
            Self::Released => f.write_str("released"),
        }
    }
}

impl NodeState {
    /// A node that was told to stage and is not done.
    pub(crate) fn staging(node: &NodeSeen) -> Self {
        node.trouble().map_or(Self::Staging, |why| Self::Retrying(why.to_owned()))
    }
}

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// Every node of the snapshot.
    pub nodes: BTreeMap<String, NodeState>,
    /// The failure that stopped the rollout, to be written down.
    pub rejected: Option<Rejected>,
    /// Why the rollout stopped, for a person: which node, what happened, what to do.
    pub stopped: Option<String>,
    /// Who paused it.
    pub paused: Option<String>,
    /// Whether the image object is being deleted, and its nodes are let go of.
    pub deleting: bool,
    /// When to look again even if nothing is seen to change.
    pub wake_at: Option<Timestamp>,
    /// Nodes of which is to be found out whether they may leave service.
    pub asks: BTreeSet<String>,
    /// Whether a deleted image object holds no node any more.
    pub released: bool,
}

impl Report {
    /// How many nodes there are for which `is` holds.
    pub fn count(&self, is: impl Fn(&NodeState) -> bool) -> usize {
        self.nodes.values().filter(|state| is(state)).count()
    }

    /// How many nodes this image is for.
    pub fn total(&self) -> usize {
        self.count(|state| !is_apart(state))
    }

    /// Whether every node runs the image.
    pub fn done(&self) -> bool {
        self.stopped.is_none() && self.count(|state| *state == NodeState::Updated) == self.total()
    }

    /// One line for people: how far, what is going on, what holds it.
    pub fn summary(&self) -> String {
        let updated = self.count(|state| *state == NodeState::Updated);
        let mut parts = vec![format!("{updated}/{} updated", self.total())];
        // Three names are enough to begin looking; the plans have the rest.
        let moving = self.nodes.iter().filter(|(_, state)| is_moving(state)).take(3);
        parts.extend(moving.map(|(name, state)| format!("{name} {state}")));
        if let Some(stopped) = &self.stopped {
            parts.push(format!("stopped: {stopped}"));
        } else if let Some(paused) = &self.paused {
            parts.push(format!("paused by {paused}"));
        }
        parts.join("; ")
    }
}

fn is_apart(state: &NodeState) -> bool {
    matches!(state, NodeState::ClaimedByOther(_) | NodeState::Unmanageable | NodeState::Released)
}

fn is_moving(state: &NodeState) -> bool {
    if matches!(state, NodeState::WaitsToStart(Hold::Departure(_))) {
        // What is in its way is news, and somebody may have to act.
        return true;
    }
    !is_apart(state)
        && !matches!(
            state,
            NodeState::Updated
                | NodeState::WaitsToStage(_)
                | NodeState::WaitsToStart(_)
                | NodeState::Failed(_)
        )
}
