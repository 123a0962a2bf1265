//! The fleet as one image object sees it: its nodes and their plans, and what is down of the control plane besides.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_crds::{ManagedOSImage, NodePlan, names::CORDONED_BY};
use evenkeel_operator_core::{Checks, DrainSeen, NodeSeen, PlanSeen, Snapshot};
use k8s_openapi::api::core::v1::Node;
use kube::{Resource as _, ResourceExt as _};

use crate::{
    claim::{Claim, Claimant, claim},
    context::Context,
    marks,
    seen::Guarded,
};

/// Labels that mark a node of the control plane: the one of today, and the one before Kubernetes 1.24.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// The nodes that the image selects or holds, and the plans among them that cannot be read.
pub fn seen(context: &Context, image: &ManagedOSImage) -> (Snapshot, Vec<String>) {
    let seen = &context.seen;
    fleet(image, &seen.images.all(), &seen.nodes.all(), seen.plans.all())
}

fn fleet(
    image: &ManagedOSImage,
    images: &[Arc<Guarded<ManagedOSImage>>],
    nodes: &[Arc<Node>],
    plans: Vec<Arc<Guarded<NodePlan>>>,
) -> (Snapshot, Vec<String>) {
    let me = Claimant::of(image);
    let mut all: Vec<Claimant> =
        images.iter().filter_map(|guarded| guarded.0.as_ref().ok()).map(Claimant::of).collect();
    if !all.iter().any(|claimant| claimant.uid == me.uid) {
        all.push(me.clone());
    }
    let mut unreadable = Vec::new();
    let mut plans: BTreeMap<String, Arc<Guarded<NodePlan>>> =
        plans.into_iter().map(|plan| (plan.name_any(), plan)).collect();
    let mut snapshot = Snapshot::default();
    for node in nodes {
        let name = node.name_any();
        let guarded = plans.remove(&name);
        let plan = guarded.as_ref().and_then(|plan| plan.0.as_ref().ok());
        let claim = claim(&me, &all, node.labels(), guarded.as_ref().map(|plan| plan.meta()));
        let invalid = guarded.as_ref().and_then(|plan| plan.0.as_ref().err());
        let mut seen = node_seen(node, plan, &claim);
        seen.checks.avoided = marks::is_avoided(node, &me.uid);
        let orphaned = |by: &String| !images.iter().any(|image| image.name_any() == *by);
        if seen.cordoned_by.as_ref().is_some_and(orphaned) && claim.selected && claim.other.is_none() {
            // Its image object went without giving it back, as when somebody removed the finalizer.
            seen.cordoned_by = Some(me.name.clone());
        }
        let held = claim.plan_is_ours
            || seen.checks.avoided
            || seen.cordoned_by.as_deref() == Some(me.name.as_str());
        if let Some(invalid) = invalid {
            // Nobody knows whether it is in its turn: nothing is done to it, not even what is done without a plan.
            if claim.selected || held {
                unreadable.push(format!("NodePlan {name} cannot be read ({})", invalid.error));
            }
            if seen.control_plane {
                snapshot.other_controllers_down.insert(name);
            }
        } else if claim.selected || held {
            snapshot.nodes.insert(name, seen);
        } else if seen.control_plane && (!seen.ready || seen.unschedulable || in_turn(plan)) {
            snapshot.other_controllers_down.insert(name);
        }
    }
    // What is left are plans without a Node.
    for (name, guarded) in plans {
        let Ok(plan) = &guarded.0 else { continue };
        let claim = claim(&me, &all, &BTreeMap::new(), Some(&plan.metadata));
        if claim.plan_is_ours {
            let node = Node::default();
            snapshot.nodes.insert(name, NodeSeen { gone: true, ..node_seen(&node, Some(plan), &claim) });
        }
    }
    (snapshot, unreadable)
}

fn in_turn(plan: Option<&NodePlan>) -> bool {
    plan.is_some_and(|plan| plan.spec.disruption.is_some())
}

/// A Node and its plan, as the planner sees them.
fn node_seen(node: &Node, plan: Option<&NodePlan>, claim: &Claim) -> NodeSeen {
    let status = node.status.clone().unwrap_or_default();
    let conditions: BTreeMap<String, String> = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .map(|condition| (condition.type_, condition.status))
        .collect();
    let ours = plan.filter(|_| claim.plan_is_ours);
    NodeSeen {
        gone: false,
        selected: claim.selected,
        control_plane: CONTROL_PLANE.iter().any(|label| node.labels().contains_key(*label)),
        ready: conditions.get("Ready").is_some_and(|status| status == "True"),
        unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        cordoned_by: node.annotations().get(CORDONED_BY).cloned(),
        boot_id: status.node_info.map(|info| info.boot_id).unwrap_or_default(),
        conditions,
        plan: ours.map(|plan| PlanSeen {
            spec: plan.spec.clone(),
            status: plan.status.clone().unwrap_or_default(),
        }),
        drain: DrainSeen::NotLookedAt,
        checks: Checks::default(),
        claimed_by_other: claim.other.clone(),
        ..NodeSeen::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_what_its_object_says() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "n1",
                "labels": { "node-role.kubernetes.io/control-plane": "" },
                "annotations": { CORDONED_BY: "os" },
            },
            "spec": { "unschedulable": true },
            "status": {
                "nodeInfo": {
                    "bootID": "boot-1", "architecture": "amd64", "containerRuntimeVersion": "", "kernelVersion": "",
                    "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "linux",
                    "osImage": "", "systemUUID": "",
                },
                "conditions": [{ "type": "Ready", "status": "True" }, { "type": "DiskOk", "status": "False" }],
            },
        }))
        .unwrap();
        let plan = NodePlan::new("n1", evenkeel_crds::NodePlanSpec::default());
        let ours = Claim { selected: true, plan_is_ours: true, other: None };
        let seen = node_seen(&node, Some(&plan), &ours);
        assert!(seen.ready && seen.control_plane && seen.unschedulable && seen.plan.is_some());
        assert_eq!((seen.boot_id.as_str(), seen.cordoned_by.as_deref()), ("boot-1", Some("os")));
        assert_eq!(seen.conditions["DiskOk"], "False");
        let theirs = Claim { plan_is_ours: false, other: Some("old".into()), ..ours };
        assert!(node_seen(&node, Some(&plan), &theirs).plan.is_none(), "another's plan is none of ours");
        let bare = node_seen(&Node::default(), None, &Claim::default());
        assert!(!bare.ready && !bare.control_plane && !bare.unschedulable);
    }
}
