//! The lifecycle conditions of Nodes (KEP-5683), which tell others that a node is drained or out of service for an update.
//! They only tell: nothing is decided by them, and an API server that refuses them is not asked again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use evenkeel_crds::names::{LIFECYCLE_REASON, OPERATOR_FIELD_MANAGER};
use evenkeel_operator_core::{
    Policy, Snapshot,
    lifecycle::{CONDITIONS, Lifecycle, lifecycle},
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    api::{ApiError, call, with_causes},
    context::Context,
};

/// Writes at the same time.
const AT_ONCE: usize = 16;

/// Whether the conditions are published.
#[derive(Debug)]
pub struct Publishing(AtomicBool);

impl Publishing {
    /// As the command line says.
    pub fn new(wanted: bool) -> Self {
        Self(AtomicBool::new(wanted))
    }
}

/// Makes the conditions of an image object's nodes what is true. Those that are so already cost nothing.
pub async fn publish(context: &Context, policy: &Policy, snapshot: &Snapshot) {
    if !context.lifecycle.0.load(Ordering::Relaxed) {
        return;
    }
    let writes = snapshot.nodes.iter().filter_map(|(name, seen)| {
        if seen.gone || seen.claimed_by_other.is_some() {
            return None;
        }
        let node = context.seen.nodes.get(name)?;
        let patch = change(&node, lifecycle(policy, seen), &policy.name, Timestamp::now())?;
        Some(write(context, node, patch))
    });
    let writes: Vec<_> = writes.collect();
    let outcomes: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
    for error in outcomes.into_iter().filter_map(Result::err).filter(|error| !error.is_stale()) {
        if matches!(error.reason(), "Forbidden" | "Invalid")
            && context.lifecycle.0.swap(false, Ordering::Relaxed)
        {
            let error = with_causes(&error);
            tracing::warn!(error, "lifecycle conditions are not published: the API server refuses them");
        }
    }
}

/// The change to the Node's status, if there is one. What others say by the same conditions is left alone.
fn change(node: &Node, wanted: Lifecycle, image: &str, now: Timestamp) -> Option<Value> {
    let changes: Vec<Value> = CONDITIONS
        .into_iter()
        .zip(wanted.says())
        .filter_map(|(kind, wanted)| {
            let there = condition(node, kind);
            match (wanted, there) {
                (true, None) => Some(json!({
                    "type": kind,
                    "status": "True",
                    "reason": LIFECYCLE_REASON,
                    "message": format!("ManagedOSImage {image} updates the operating system of this node"),
                    "lastTransitionTime": now.round(jiff::Unit::Second).unwrap_or(now),
                })),
                (false, Some(there)) if is_ours(there) => Some(json!({ "type": kind, "$patch": "delete" })),
                _ => None,
            }
        })
        .collect();
    (!changes.is_empty()).then(|| json!({ "status": { "conditions": changes } }))
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is one that we wrote.
fn is_ours(condition: &NodeCondition) -> bool {
    condition.reason.as_deref() == Some(LIFECYCLE_REASON)
}

async fn write(context: &Context, node: Arc<Node>, mut patch: Value) -> Result<(), ApiError> {
    let name = node.name_any();
    patch["metadata"] = json!({ "uid": node.uid() });
    let api: Api<Node> = Api::all(context.clients.main.clone());
    let params = PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    let what = format!("write the lifecycle conditions of node {name}");
    let written = call(&what, api.patch_status(&name, &params, &Patch::Strategic(&patch))).await?;
    context.seen.nodes.wrote(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: &Value) -> Node {
        serde_json::from_value(json!({ "status": { "conditions": conditions } })).unwrap()
    }

    fn ours(kind: &str) -> Value {
        json!({ "type": kind, "status": "True", "reason": LIFECYCLE_REASON })
    }

    fn changed(node: &Node, wanted: Lifecycle) -> Vec<(String, bool)> {
        let patch = change(node, wanted, "os", Timestamp::UNIX_EPOCH).unwrap_or_default();
        let all = patch["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| (one["type"].as_str().unwrap().to_owned(), one["$patch"].is_null())).collect()
    }

    #[test]
    fn only_what_differs_is_written_and_only_what_is_ours_is_taken_away() {
        let new = node(&json!([{ "type": "Ready", "status": "True" }]));
        assert_eq!(changed(&new, Lifecycle::InService), []);
        assert_eq!(changed(&new, Lifecycle::Draining), [("DrainInProgress".to_owned(), true)]);
        let draining = node(&json!([ours("DrainInProgress")]));
        assert_eq!(changed(&draining, Lifecycle::Draining), []);
        let names =
            |kept: &[(&str, bool)]| kept.iter().map(|(n, k)| ((*n).to_owned(), *k)).collect::<Vec<_>>();
        assert_eq!(
            changed(&draining, Lifecycle::Maintained { drained: true }),
            names(&[("DrainInProgress", false), ("Drained", true), ("MaintenanceInProgress", true)])
        );
        let foreign = json!({ "type": "MaintenanceInProgress", "status": "True", "reason": "Firmware" });
        let both = node(&json!([ours("Drained"), foreign]));
        assert_eq!(changed(&both, Lifecycle::InService), names(&[("Drained", false)]));
        assert_eq!(changed(&both, Lifecycle::Maintained { drained: true }), []);
    }
}
