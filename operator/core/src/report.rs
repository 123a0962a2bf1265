//! Why each node is where it is: the typed answer that conditions, events and the command line render.

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
    /// It was told to reboot and has not been heard of since.
    Lost(String),
    /// It kept the image, and waits for its turn to leave it.
    WaitsToGoBack(Hold),
    /// It left the image, because the rollout was taken back.
    TakenBack,
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
        /// On how many nodes the image failed; they count as unavailable.
        failed: usize,
        /// How many may be.
        budget: usize,
    },
    /// So many nodes of its domain as allowed are unavailable already.
    DomainBudget {
        /// The domain.
        domain: String,
        /// How many are unavailable there.
        unavailable: usize,
        /// How many of them because the image failed there.
        failed: usize,
        /// How many may be.
        budget: usize,
    },
    /// Another domain is to be finished first.
    Domain(String),
    /// Etcd would lose its quorum.
    Quorum {
        /// How many other members are ready.
        ready: usize,
        /// How many have to be.
        needed: usize,
    },
    /// It is not in the present step, or the step waits.
    Step(StepState),
    /// No window is open.
    Window {
        /// The exclusion's reason, if it is one.
        because: Option<String>,
        /// When one opens.
        next: Option<Timestamp>,
    },
    /// What is left of the window is too short.
    TooShort {
        /// How long a node's turn takes.
        takes: SignedDuration,
        /// When a window opens that is long enough.
        next: Option<Timestamp>,
    },
    /// No window for staging is open.
    StagingWindow {
        /// When one opens.
        next: Option<Timestamp>,
    },
    /// The operator runs there, and other nodes come first.
    OperatorsNode,
    /// Nothing is begun in a dry run.
    DryRun,
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

/// The step that a rollout is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepState {
    /// Which, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// What it waits for.
    pub waits: StepWait,
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepWait {
    /// Its nodes.
    Nodes {
        /// How many are done.
        done: usize,
        /// Of how many.
        wanted: usize,
    },
    /// Its selector to match a node.
    NoNode,
    /// Time to pass.
    Soak {
        /// Until then.
        until: Timestamp,
    },
    /// Somebody's word.
    Approval {
        /// What the annotation has to name.
        token: String,
    },
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, of, waits } = self;
        write!(f, "step {number} of {of} ")?;
        match waits {
            StepWait::Nodes { done, wanted } => write!(f, "has {done} of {wanted} nodes"),
            StepWait::NoNode => f.write_str("waits: its selector matches no node"),
            StepWait::Soak { until } => write!(f, "soaks until {until}"),
            StepWait::Approval { token } => {
                write!(f, "waits for approval: annotate evenkeel.dev/approve='{token} YOUR-NAME'")
            }
        }
    }
}

fn from(next: Option<Timestamp>) -> String {
    next.map_or_else(|| "none is known to come".to_owned(), |next| format!("the next one opens at {next}"))
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused(by) => write!(f, "paused by {by}"),
            Self::Stopped(node) => write!(f, "the rollout stopped because the image failed on {node}"),
            Self::Budget { unavailable, failed: 0, budget } => {
                write!(f, "{unavailable} of {budget} nodes that may be unavailable are")
            }
            Self::Budget { unavailable, failed, budget } => write!(
                f,
                "{unavailable} of {budget} nodes that may be unavailable are, {failed} of them because the image failed there"
            ),
            Self::DomainBudget { domain, unavailable, failed, budget } => {
                write!(f, "{unavailable} of {budget} nodes of domain {domain} that may be unavailable are")?;
                if *failed > 0 {
                    write!(f, ", {failed} of them because the image failed there")?;
                }
                Ok(())
            }
            Self::Domain(domain) => write!(f, "domain {domain} is finished first"),
            Self::Quorum { ready, needed } => {
                write!(f, "etcd would lose its quorum: {ready} other members are ready, {needed} have to be")
            }
            Self::Step(state) => state.fmt(f),
            Self::Window { because: Some(reason), next } => write!(f, "excluded ({reason}); {}", from(*next)),
            Self::Window { because: None, next } => write!(f, "no window is open; {}", from(*next)),
            Self::TooShort { takes, next: Some(next) } => write!(
                f,
                "a node takes about {} and does not fit into what is left of the window; the next one opens at {next}",
                line::span(*takes)
            ),
            Self::TooShort { takes, next: None } => {
                write!(f, "no window is long enough: a node takes about {}", line::span(*takes))
            }
            Self::StagingWindow { next } => write!(f, "no window for staging is open; {}", from(*next)),
            Self::OperatorsNode => f.write_str("the operator runs there: the other nodes come first"),
            Self::DryRun => f.write_str("nothing is begun in a dry run"),
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
            Self::TriesAgain { why, at } => write!(f, "failed and tries again at {at}: {why}"),
            Self::BelowMinimum(why) => f.write_str(why),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::WaitsToGoBack(hold) => write!(f, "waits to go back: {hold}"),
            Self::TakenBack => f.write_str("taken back"),
            Self::Overdue(what) => write!(f, "overdue: {what}"),
            Self::Released => f.write_str("released"),
        }
    }
}

impl NodeState {
    /// Whether the image failed there, or the node was not heard of since it was told to boot it.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Lost(_))
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
