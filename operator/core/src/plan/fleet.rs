//! What the planner needs to know of the fleet as a whole.

use std::collections::BTreeSet;

use evenkeel_crds::{
    managed_os_image::Rejected,
    node_plan::{NodePlanStatus, Phase},
};

use crate::{
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

/// Longest message of a failure that is written down, in bytes; the schema allows 2048 characters.
const MESSAGE_MAX: usize = 2048;

/// The fleet as a whole.
pub struct Fleet {
    /// How many nodes may be unavailable.
    pub budget: usize,
    /// Nodes that are unavailable, for whatever reason.
    pub unavailable: BTreeSet<String>,
    /// Whether a node runs the image, committed.
    pub proven: bool,
    /// Why nothing is started any more.
    pub stopped: Option<String>,
    /// The failure behind it.
    pub rejected: Option<Rejected>,
}

impl Fleet {
    pub fn of(policy: &Policy, snapshot: &Snapshot) -> Self {
        let ours = || {
            snapshot
                .nodes
                .iter()
                .filter(|(_, node)| node.selected && !node.gone && node.claimed_by_other.is_none())
        };
        // A node that left the selection in its turn is out of service all the same.
        let held = |node: &NodeSeen| node.disruption().is_some() && !node.gone;
        let down = ours().filter(|(_, node)| !node.available()).map(|(name, _)| name.clone());
        let turns = snapshot.nodes.iter().filter(|(_, node)| held(node)).map(|(name, _)| name.clone());
        let seen =
            ours().find_map(|(name, node)| Some(rejection(policy, name, node, failure(policy, node)?)));
        let rejected = seen.or_else(|| remembered(policy, snapshot));
        Self {
            budget: policy.max_unavailable.of(ours().count()),
            unavailable: down.chain(turns).collect(),
            proven: ours().any(|(_, node)| updated(policy, node)),
            stopped: rejected.as_ref().map(|rejected| stop_message(policy, rejected)),
            rejected,
        }
    }
}

/// Whether the node runs the image, and not on trial.
pub fn updated(policy: &Policy, node: &NodeSeen) -> bool {
    let Some(plan) = &node.plan else { return false };
    let runs =
        plan.status.booted.as_ref().is_some_and(|booted| Some(booted.digest.as_str()) == policy.digest());
    runs && matches!(plan.status.phase, Phase::Idle | Phase::Committed)
}

/// Why the image that is wanted counts as failed on this node.
pub fn failure(policy: &Policy, node: &NodeSeen) -> Option<String> {
    let plan = node.plan.as_ref()?;
    let digest = policy.digest()?;
    if updated(policy, node) || node.unmanageable() {
        return None;
    }
    let of_this_image = plan.spec.order().is_some_and(|order| order.digest() == digest);
    if of_this_image && matches!(node.phase(), Phase::RolledBack | Phase::Failed) {
        return Some(said(&plan.status));
    }
    condemned(policy, &plan.status).then(|| "it failed there before".to_owned())
}

/// Whether the machine itself refuses the image for good.
fn condemned(policy: &Policy, status: &NodePlanStatus) -> bool {
    status.bad_digests.iter().any(|bad| Some(bad.as_str()) == policy.digest())
}

fn rejection(policy: &Policy, name: &str, node: &NodeSeen, mut message: String) -> Rejected {
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    let condemned = node.plan.as_ref().is_some_and(|plan| condemned(policy, &plan.status));
    Rejected {
        digest: policy.digest().unwrap_or_default().to_owned(),
        node: name.to_owned(),
        message,
        condemned,
    }
}

/// The failure that was written down. A plan that was deleted tells nothing of it, but its node's agent will: only what
/// that says lifts it.
fn remembered(policy: &Policy, snapshot: &Snapshot) -> Option<Rejected> {
    let rejected =
        policy.rejected.clone().filter(|rejected| Some(rejected.digest.as_str()) == policy.digest())?;
    let ours = |node: &&NodeSeen| node.selected && !node.gone && node.claimed_by_other.is_none();
    let Some(node) = snapshot.nodes.get(&rejected.node).filter(ours) else {
        return rejected.condemned.then_some(rejected);
    };
    let reported = node.plan.as_ref().is_some_and(|plan| plan.status.host.is_some());
    (!reported).then_some(rejected)
}

fn stop_message(policy: &Policy, rejected: &Rejected) -> String {
    let Rejected { node, message, condemned, .. } = rejected;
    let image = policy.image.as_deref().unwrap_or_default();
    let why = message.trim_end_matches('.');
    let remedy = if *condemned {
        "Publish a fixed image and set it as osImage".to_owned()
    } else {
        format!("Remove the cause and `kubectl delete nodeplan {node}` to try again, or set another osImage")
    };
    format!("{image} failed on {node} ({why}); no other node gets it. {remedy}")
}

fn said(status: &NodePlanStatus) -> String {
    if let Some(back) = &status.rolled_back {
        return format!("{:?}: {}", back.cause, back.message);
    }
    status.error.as_ref().map_or_else(|| "no reason given".to_owned(), |error| error.message.clone())
}
