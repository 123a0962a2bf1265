//! Why each node is where it is: the typed answer that conditions, events and the command line render.

mod hold;
mod line;
mod recovery;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use evenkeel_crds::{
    managed_os_image::Rejected,
    rollout_status::{Denied, Preview, Progress, RunNow},
};
use jiff::{SignedDuration, Timestamp};

pub use hold::{Hold, StepState, StepWait};
pub use recovery::RecoverySlots;

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
    /// It was told to apply its cloud-config, without a reboot.
    Applying,
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
    /// The image failed on it, which says nothing against the image; it tries again.
    TriesAgain {
        /// What failed.
        why: String,
        /// When.
        at: Timestamp,
    },
    /// What runs is too old for the version that is wanted.
    BelowMinimum(String),
    /// It was told to reboot, or what else its turn is for, and has not been heard of since.
    Lost(String),
    /// It kept the image, and waits for its turn to leave it.
    WaitsToGoBack(Hold),
    /// It left the image, because the rollout was taken back.
    TakenBack,
    /// It did not do in time what it was told.
    Overdue(String),
    /// Its machine is to begin anew, and waits for its turn.
    WaitsToReset(Hold),
    /// It is let go of.
    Released,
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
            Self::Applying => f.write_str("applying its cloud-config"),
            Self::Unhealthy(why) => write!(f, "on trial, not healthy: {why}"),
            Self::Soaking => f.write_str("on trial, soaking"),
            Self::Committing => f.write_str("committing"),
            Self::Reverting(why) => write!(f, "going back: {why}"),
            Self::Finishing => f.write_str("finishing"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::TriesAgain { why, at } => write!(f, "failed and tries again at {at}: {why}"),
            Self::BelowMinimum(why) => f.write_str(why),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::WaitsToGoBack(hold) => write!(f, "waits to go back: {hold}"),
            Self::TakenBack => f.write_str("taken back"),
            Self::Overdue(what) => write!(f, "overdue: {what}"),
            Self::WaitsToReset(hold) => write!(f, "waits to begin anew: {hold}"),
            Self::Released => f.write_str("released"),
        }
    }
}

impl NodeState {
    /// Whether the image failed there, or the node was not heard of since it was told to boot it.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Lost(_))
    }

    /// What keeps a node that waits to be started from it, for whatever its turn is.
    pub fn hold(&self) -> Option<&Hold> {
        match self {
            Self::WaitsToStage(hold) | Self::WaitsToStart(hold) | Self::WaitsToReset(hold) => Some(hold),
            _ => None,
        }
    }

    /// Whether nothing is left to do for the node.
    pub(crate) fn is_over(&self) -> bool {
        let over =
            Self::is_failure(self) || matches!(self, Self::Updated | Self::TakenBack | Self::BelowMinimum(_));
        over || is_apart(self)
    }

    /// A node that was told to stage and is not done.
    pub(crate) fn staging(node: &NodeSeen) -> Self {
        node.trouble().map_or(Self::Staging, |why| Self::Retrying(why.to_owned()))
    }
}

/// The whole answer.
// Each flag is a fact of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// Every node of the snapshot.
    pub nodes: BTreeMap<String, NodeState>,
    /// The failure that stopped the rollout, to be written down.
    pub rejected: Option<Rejected>,
    /// Why the rollout stopped, for a person: which node, what happened, what to do.
    pub stopped: Option<String>,
    /// Images that nodes came back from, to be written down.
    pub denied: Vec<Denied>,
    /// Who paused it.
    pub paused: Option<String>,
    /// Whether nothing is begun at all.
    pub dry_run: bool,
    /// The step that it is in.
    pub step: Option<StepState>,
    /// How far it is, to be written down.
    pub progress: Option<Progress>,
    /// Whether windows and exclusions keep nodes from being started.
    pub shut: bool,
    /// When nodes may be started again.
    pub next_window: Option<Timestamp>,
    /// Who has windows ignored.
    pub run_now: Option<RunNow>,
    /// In a dry run: what would be done.
    pub preview: Option<Preview>,
    /// What recovery slots do not hold yet.
    pub recovery: RecoverySlots,
    /// What was asked for and cannot be understood.
    pub notes: Vec<String>,
    /// The nodes whose turn comes next, the first few.
    pub queue: Vec<String>,
    /// The budget that nodes on which the image failed take whole, where no other can be started for that.
    pub used_up: Option<String>,
    /// How long a node's turn takes, as far as it was measured.
    pub takes: Option<SignedDuration>,
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

    /// Whether nothing is left to do, although some nodes cannot have the image.
    pub fn ended(&self) -> bool {
        self.stopped.is_none() && self.nodes.values().all(NodeState::is_over)
    }

    /// Whether every node runs the image.
    pub fn done(&self) -> bool {
        self.stopped.is_none() && self.count(|state| *state == NodeState::Updated) == self.total()
    }
}

fn is_apart(state: &NodeState) -> bool {
    matches!(state, NodeState::ClaimedByOther(_) | NodeState::Unmanageable | NodeState::Released)
}
