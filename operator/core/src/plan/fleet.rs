//! What the planner needs to know of the fleet as a whole.

use evenkeel_crds::node_plan::Phase;
use jiff::{SignedDuration, Timestamp};

use super::{failure::Failures, verdict::Verdict};
use crate::{
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

/// The fleet as a whole.
pub struct Fleet<'a> {
    /// How many nodes are selected.
    pub size: usize,
    /// Whether a node runs the image, committed.
    pub proven: bool,
    /// The nodes on which the image failed.
    pub failures: Failures<'a>,
    /// What failures mean for the rollout.
    pub verdict: Verdict,
    /// How long a node's turn takes: the median of those that were measured.
    pub takes: Option<SignedDuration>,
}

impl<'a> Fleet<'a> {
    pub fn of(policy: &Policy, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let ours = || snapshot.nodes.values().filter(|node| node.ours());
        let proven = ours().any(|node| updated(policy, node));
        let failures = Failures::of(policy, snapshot, now);
        Self {
            size: ours().count(),
            proven,
            verdict: Verdict::of(policy, snapshot, &failures, proven, now),
            failures,
            takes: median(ours().filter_map(measured).collect()),
        }
    }
}

/// Whether the node runs the image, and not on trial.
pub fn updated(policy: &Policy, node: &NodeSeen) -> bool {
    let Some(plan) = &node.plan else { return false };
    let runs = plan.status.booted.as_ref().is_some_and(|booted| policy.is_run_by(booted));
    runs && matches!(plan.status.phase, Phase::Idle | Phase::Committed)
}

/// How long the node's last turn with a reboot took, whatever the image, if it went well.
fn measured(node: &NodeSeen) -> Option<SignedDuration> {
    let turn = node.plan.as_ref()?.spec.last_turn.as_ref()?;
    turn.reboot_took_seconds.map(SignedDuration::from_secs)
}

/// One turn that took all day says nothing about the next one: the median, not the longest.
fn median(mut measured: Vec<SignedDuration>) -> Option<SignedDuration> {
    let middle = measured.len() / 2;
    if measured.is_empty() {
        return None;
    }
    Some(*measured.select_nth_unstable(middle).1)
}
