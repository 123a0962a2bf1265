//! Which nodes the scheduler shall prefer others to, because their own turn is still to come.

use std::collections::BTreeSet;

use super::{Action, Decision};
use crate::{
    policy::Policy,
    report::{Hold, NodeState},
    snapshot::Snapshot,
};

/// Marks nodes that wait, and takes the mark from others, where nothing else is done to a node in this look. A node in its
/// turn loses it with its cordon: until then nothing is put there anyway.
pub fn mark(policy: &Policy, snapshot: &Snapshot, decision: &mut Decision) {
    let busy: BTreeSet<&str> = decision.actions.iter().map(|(name, _)| name.as_str()).collect();
    let mut marks = Vec::new();
    for (name, node) in &snapshot.nodes {
        let Some(state) = decision.report.nodes.get(name) else { continue };
        let wanted = policy.drain.prefer_no_schedule && !policy.deleting && !policy.dry_run && waits(state);
        if wanted != node.checks.avoided
            && !node.gone
            && !busy.contains(name.as_str())
            && node.disruption().is_none()
        {
            marks.push((name.clone(), Action::Avoid(wanted)));
        }
    }
    decision.actions.extend(marks);
}

/// Whether a node's turn is still to come. After a failure nobody's is, and while the image is not known whose is not known.
fn waits(state: &NodeState) -> bool {
    match state {
        NodeState::Staging | NodeState::Retrying(_) => true,
        NodeState::WaitsToStage(hold) | NodeState::WaitsToStart(hold) => {
            !matches!(hold, Hold::Stopped(_) | Hold::Unresolved)
        }
        _ => false,
    }
}
