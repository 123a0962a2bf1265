//! What the planner needs to know of the fleet as a whole.

use std::collections::BTreeSet;

use evenkeel_crds::node_plan::{NodePlanStatus, Phase};

use crate::{
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

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
    /// The node on which the image failed.
    pub failed_on: Option<String>,
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
        let failed = ours().find_map(|(name, node)| failure(policy, node).map(|why| (name.clone(), why)));
        let stopped =
            failed.as_ref().map(|(name, why)| stop_message(policy, name, &snapshot.nodes[name], why));
        Self {
            budget: policy.max_unavailable.of(ours().count()),
            unavailable: down.chain(turns).collect(),
            proven: ours().any(|(_, node)| updated(policy, node)),
            stopped,
            failed_on: failed.map(|(name, _)| name),
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

fn stop_message(policy: &Policy, name: &str, node: &NodeSeen, why: &str) -> String {
    let image = policy.image.as_deref().unwrap_or_default();
    let why = why.trim_end_matches('.');
    let remedy = if node.plan.as_ref().is_some_and(|plan| condemned(policy, &plan.status)) {
        "Publish a fixed image and set it as osImage".to_owned()
    } else {
        format!("Remove the cause and `kubectl delete nodeplan {name}` to try again, or set another osImage")
    };
    format!("{image} failed on {name} ({why}); no other node gets it. {remedy}")
}

fn said(status: &NodePlanStatus) -> String {
    if let Some(back) = &status.rolled_back {
        return format!("{:?}: {}", back.cause, back.message);
    }
    status.error.as_ref().map_or_else(|| "no reason given".to_owned(), |error| error.message.clone())
}
