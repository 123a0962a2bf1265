//! What holds a node back, or a step.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::line;

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
    /// This node is to prove the image, and its agent has not reported yet.
    FirstUnheard(String),
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
            Self::FirstUnheard(node) => {
                write!(f, "{node} comes first, and its agent is given a moment to report")
            }
            Self::Asking => f.write_str("it is being found out whether it may leave service"),
            Self::Departure(by) => write!(f, "it may not leave service: {by}"),
            Self::Behind => f.write_str("many nodes before it may not leave service"),
            Self::MaxStaging => f.write_str("as many nodes as allowed are staging"),
        }
    }
}
