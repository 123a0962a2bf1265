//! The fleet as one image object sees it: its nodes and their plans, and what is down of the control plane besides.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use evenkeel_crds::{ManagedOSImage, names::CORDONED_BY};
use evenkeel_operator_core::{NodeSeen, Snapshot};
use k8s_openapi::api::core::v1::Node;
use kube::{Resource as _, ResourceExt as _};

use super::place::{self, Places};
use crate::{
    claim::{Claim, Claimant, claim},
    context::Context,
    guarded::Guarded,
    marks,
    seen::KnownPlan,
};

/// Labels that mark a node of the control plane: the one of today, and the one before Kubernetes 1.24.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// What is seen.
pub struct Seen {
    /// The nodes that the image selects or holds.
    pub snapshot: Snapshot,
    /// The plans among theirs that cannot be read.
    pub unreadable: Vec<String>,
    /// What is not understood of what somebody wants of a node: the first of it.
    pub wrong: Option<String>,
}

/// Looks.
pub fn seen(context: &Context, image: &ManagedOSImage) -> Seen {
    let seen = &context.seen;
    fleet(image, &seen.images.all(), &seen.nodes.all(), &seen.plans.all())
}

fn fleet(
    image: &ManagedOSImage,
    images: &[Arc<Guarded<ManagedOSImage>>],
    nodes: &[Arc<Node>],
    plans: &[Arc<Guarded<KnownPlan>>],
) -> Seen {
    let me = Claimant::of(image);
    let mut all = Claimant::of_all(images);
    if !all.iter().any(|claimant| claimant.uid == me.uid) {
        all.push(me.clone());
    }
    let (mut unreadable, mut wrong) = (Vec::new(), None);
    let places = Places::of(&image.spec.rollout);
    let asked: Vec<&str> = asked_conditions(image);
    let mut plans: HashMap<&str, &Guarded<KnownPlan>> =
        plans.iter().map(|plan| (plan.meta().name.as_deref().unwrap_or_default(), plan.as_ref())).collect();
    let mut snapshot = Snapshot::default();
    for node in nodes {
        let name = node.name_any();
        let guarded = plans.remove(name.as_str());
        let plan = guarded.and_then(|plan| plan.0.as_ref().ok());
        let claim = claim(&me, &all, node.labels(), guarded.map(kube::Resource::meta));
        let invalid = guarded.and_then(|plan| plan.0.as_ref().err());
        let mut seen = node_seen(node, plan, &claim, &asked);
        seen.checks.avoided = marks::is_avoided(node, &me.uid);
        let orphaned = |by: &String| !images.iter().any(|image| image.name_any() == *by);
        if seen.cordoned_by.as_ref().is_some_and(orphaned) && claim.selected && claim.other.is_none() {
            // Its image object went without giving it back, as when somebody removed the finalizer.
            seen.cordoned_by = Some(me.name.clone());
        }
        let held = claim.plan_is_ours
            || seen.checks.avoided
            || seen.cordoned_by.as_deref() == Some(me.name.as_str());
        let ours = claim.plan_is_ours || claim.selected && claim.other.is_none();
        let down = !seen.ready || seen.unschedulable || invalid.is_some() || in_turn(plan);
        if seen.control_plane && down && (!ours || invalid.is_some()) {
            snapshot.other_controllers_down.insert(name.clone());
        }
        if !claim.selected && !held {
            continue;
        }
        if let Some(invalid) = invalid {
            // Nobody knows whether it is in its turn: nothing is done to it, not even what is done without a plan.
            unreadable.push(format!("NodePlan {name} cannot be read ({})", invalid.error));
        } else {
            places.place(&mut seen, node);
            match place::wipe(node) {
                Ok(wipe) => seen.reset = wipe,
                Err(said) => wrong = wrong.or(Some(said)),
            }
            snapshot.nodes.insert(name, seen);
        }
    }
    // What is left are plans without a Node.
    for (name, guarded) in plans {
        let Ok(plan) = &guarded.0 else { continue };
        let claim = claim(&me, &all, &BTreeMap::new(), Some(&plan.metadata));
        if claim.plan_is_ours {
            let node = Node::default();
            snapshot.nodes.insert(
                name.to_owned(),
                NodeSeen { gone: true, ..node_seen(&node, Some(plan), &claim, &asked) },
            );
        }
    }
    Seen { snapshot, unreadable, wrong }
}

fn in_turn(plan: Option<&KnownPlan>) -> bool {
    plan.is_some_and(|plan| plan.spec.disruption.is_some())
}

/// The conditions that gates ask for.
fn asked_conditions(image: &ManagedOSImage) -> Vec<&str> {
    let gates = image.spec.health_gates.iter();
    gates.filter_map(|gate| gate.node_condition.as_ref()).map(|wanted| wanted.r#type.as_str()).collect()
}

/// A Node and its plan, as the planner sees them. Of the conditions it has those that are `asked` for: a look at a large fleet
/// would spend much of its time on copies of the others.
fn node_seen(node: &Node, plan: Option<&KnownPlan>, claim: &Claim, asked: &[&str]) -> NodeSeen {
    let status = node.status.as_ref();
    let all = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let wanted = all.iter().filter(|condition| asked.contains(&condition.type_.as_str()));
    let conditions = wanted.map(|condition| (condition.type_.clone(), condition.status.clone())).collect();
    let info = status.and_then(|status| status.node_info.as_ref());
    let ours = plan.filter(|_| claim.plan_is_ours);
    NodeSeen {
        gone: false,
        selected: claim.selected,
        control_plane: CONTROL_PLANE.iter().any(|label| node.labels().contains_key(*label)),
        ready: all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        cordoned_by: node.annotations().get(CORDONED_BY).cloned(),
        boot_id: info.map(|info| info.boot_id.clone()).unwrap_or_default(),
        conditions,
        plan: ours.map(KnownPlan::seen),
        plan_deleted: ours.is_some_and(|plan| plan.metadata.deletion_timestamp.is_some()),
        claimed_by_other: claim.other.clone(),
        ..NodeSeen::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// An image object that was made in that second.
    fn image(name: &str, second: u8, selector: &Value) -> Arc<Guarded<ManagedOSImage>> {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let value = json!({
            "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage",
            "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": created },
            "spec": { "nodeSelector": selector },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn controller(name: &str, ready: &str) -> Arc<Node> {
        let labels = json!({ "node-role.kubernetes.io/control-plane": "", "name": name });
        let conditions = json!([{ "type": "Ready", "status": ready }]);
        let node =
            json!({ "metadata": { "name": name, "labels": labels }, "status": { "conditions": conditions } });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn plan(node: &str, of: &str, spec: &Value) -> Arc<Guarded<KnownPlan>> {
        let owner = json!({ "apiVersion": "v1", "kind": "K", "name": of, "uid": format!("uid-{of}") });
        let value = json!({
            "apiVersion": "evenkeel.dev/v1alpha1", "kind": "NodePlan",
            "metadata": { "name": node, "ownerReferences": [owner] }, "spec": spec,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn turn() -> Value {
        let record = json!({ "since": "2026-01-01T00:00:00Z", "foundCordoned": false, "bootIdBefore": "b", "attempt": 1 });
        json!({ "disruption": record })
    }

    #[test]
    fn control_plane_nodes_that_are_down_hold_ours_whoever_has_them() {
        let of_c1 = json!({ "matchLabels": { "name": "c1" } });
        let images = [image("older", 1, &of_c1), image("younger", 2, &json!({}))];
        let down = |at: usize, ready: &str, plan: &Arc<Guarded<KnownPlan>>| -> Vec<String> {
            let nodes = [controller("c1", ready), controller("c2", "True"), controller("c3", "True")];
            let me = images[at].0.as_ref().unwrap();
            fleet(me, &images, &nodes, &[Arc::clone(plan)])
                .snapshot
                .other_controllers_down
                .into_iter()
                .collect()
        };
        let (older, younger) = (plan("c1", "older", &turn()), plan("c1", "younger", &turn()));
        let idle = plan("c1", "older", &json!({}));
        assert_eq!(down(1, "True", &older), ["c1"], "the older has it in its turn");
        assert_eq!(down(1, "False", &idle), ["c1"]);
        assert!(down(1, "True", &idle).is_empty());
        assert!(
            down(0, "True", &older).is_empty() && down(0, "False", &idle).is_empty(),
            "its own are counted"
        );
        assert_eq!(down(0, "True", &younger), ["c1"], "the younger has not let go of it yet");
        assert!(down(1, "True", &younger).is_empty(), "its turn is the younger's own");
    }

    #[test]
    fn a_node_whose_plan_cannot_be_read_is_left_out_and_named() {
        let images = [image("os", 1, &json!({}))];
        let plan = plan("c1", "os", &json!({ "orderedAt": "2026-01-01T00:00:00+99:99" }));
        let nodes = [controller("c1", "True"), controller("c2", "True")];
        let Seen { snapshot: seen, unreadable, .. } =
            fleet(images[0].0.as_ref().unwrap(), &images, &nodes, &[plan]);
        assert_eq!(seen.nodes.keys().collect::<Vec<_>>(), ["c2"]);
        assert!(unreadable[0].contains("NodePlan c1"), "{unreadable:?}");
        assert!(seen.other_controllers_down.contains("c1"), "it may be in its turn");
    }

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
        let plan = evenkeel_crds::NodePlan::new("n1", evenkeel_crds::NodePlanSpec::default()).into();
        let ours = Claim { selected: true, plan_is_ours: true, other: None };
        let seen = node_seen(&node, Some(&plan), &ours, &["DiskOk"]);
        assert!(seen.ready && seen.control_plane && seen.unschedulable && seen.plan.is_some());
        assert_eq!((seen.boot_id.as_str(), seen.cordoned_by.as_deref()), ("boot-1", Some("os")));
        assert_eq!(
            seen.conditions,
            BTreeMap::from([("DiskOk".to_owned(), "False".to_owned())]),
            "what is asked for"
        );
        let theirs = Claim { plan_is_ours: false, other: Some("old".into()), ..ours };
        assert!(node_seen(&node, Some(&plan), &theirs, &[]).plan.is_none(), "another's plan is none of ours");
        let bare = node_seen(&Node::default(), None, &Claim::default(), &[]);
        assert!(!bare.ready && !bare.control_plane && !bare.unschedulable);
    }
}
