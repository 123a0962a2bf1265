//! How far a node is drained, and what becomes of a drain that takes too long.

use evenkeel_crds::{
    drain::{Drain, DrainTimeout},
    node_plan::Disruption,
};
use jiff::{SignedDuration, Timestamp};

/// How far a node is drained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DrainSeen {
    /// Nobody looked.
    #[default]
    NotLookedAt,
    /// Pods are still there, or volumes of theirs.
    Remaining {
        /// How many pods.
        pods: usize,
        /// What keeps one from leaving, such as a `PodDisruptionBudget` by name.
        blocked_by: Option<String>,
    },
    /// All pods that leave have left.
    Done,
}

/// When the drain of a node whose turn began is overdue.
pub fn deadline(drain: &Drain, record: &Disruption) -> Timestamp {
    record.draining_since.unwrap_or(record.since).0 + SignedDuration::from_secs(drain.timeout_seconds)
}

/// Whether pods that refuse are deleted by now.
pub fn is_forced(drain: &Drain, record: &Disruption, now: Timestamp) -> bool {
    drain.on_timeout == DrainTimeout::Force && now >= deadline(drain, record)
}
