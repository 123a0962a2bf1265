//! What the planner needs to know, from the watches, the API server and the registry.

mod etcd;
mod place;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_crds::{
    ManagedOSImage, NodePlan,
    names::CORDONED_BY,
    node_plan::{Phase, Target},
};
use evenkeel_operator_core::{Checks, DrainSeen, NodeSeen, PlanSeen, Snapshot, drain::is_forced};
use evenkeel_registry::Resolved;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::checks;
use crate::{
    api::ApiError,
    claim::{Claim, Claimant, claim},
    context::Context,
    drain, marks,
    resolve::{self, Failure, Question},
    status::Problem,
};

/// Drains that are looked at together.
const DRAINS_AT_ONCE: usize = 16;
/// Labels that mark a node of the control plane: the one of today, and the one before Kubernetes 1.24.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// What was gathered.
pub struct Gathered {
    /// The image by digest, once it is resolved.
    pub image: Option<String>,
    /// A reference that the registry has just resolved: to be kept before anything else is done.
    pub resolved_now: Option<(String, Resolved)>,
    /// Why the image is not resolved.
    pub problem: Option<Problem>,
    /// When to ask the registry again.
    pub retry: Option<Duration>,
    /// Plans that this version cannot read.
    pub unreadable: Vec<String>,
    /// The fleet.
    pub snapshot: Snapshot,
}

/// Gathers what one look at `image` needs.
pub async fn gather(context: &Arc<Context>, image: &Arc<ManagedOSImage>) -> Result<Gathered, ApiError> {
    let asked = ask_registry(context, image);
    let (snapshot, unreadable) = fleet(context, image);
    let mut gathered = Gathered {
        image: asked.image,
        resolved_now: asked.resolved_now,
        problem: asked.problem,
        retry: asked.retry,
        unreadable,
        snapshot,
    };
    place::mark(&mut gathered.snapshot, &image.spec.rollout, context);
    etcd::look(context, &mut gathered.snapshot).await?;
    look_at_drains(context, image, &mut gathered.snapshot).await?;
    checks::fill(context, image, &mut gathered.snapshot);
    Ok(gathered)
}

#[derive(Default)]
struct Asked {
    image: Option<String>,
    resolved_now: Option<(String, Resolved)>,
    problem: Option<Problem>,
    retry: Option<Duration>,
}

/// The digest that was kept, or else what the registry says.
fn ask_registry(context: &Arc<Context>, image: &ManagedOSImage) -> Asked {
    let reference = match resolve::reference(image, &context.seen) {
        Ok(reference) => reference,
        Err(problem) => return Asked { problem: Some(problem), ..Asked::default() },
    };
    let known = resolve::known(image, &reference);
    let deleting = image.metadata.deletion_timestamp.is_some();
    if deleting || (known.is_some() && resolve::is_verified(image)) {
        return Asked { image: known, ..Asked::default() };
    }
    let name = image.name_any();
    let question = Question {
        reference,
        pinned: known,
        pull: image.spec.pull.clone(),
        verification: image.spec.verification.clone(),
    };
    let memory = context.memory(&name);
    if let Some((_, resolved)) = memory.answer.filter(|(asked, _)| *asked == question) {
        return Asked { resolved_now: Some((question.reference, resolved)), ..Asked::default() };
    }
    let failure = memory.failure.filter(|failure| failure.asked == question);
    let retry = failure.as_ref().and_then(|failure| failure.pause(&question, Instant::now()));
    let problem = failure.map_or_else(
        || {
            Problem::passing(
                "Resolving",
                format!("the registry is being asked what {} is", question.reference),
            )
        },
        |failure| failure.problem,
    );
    if retry.is_none() && memory.asking.as_ref() != Some(&question) {
        ask(context, name, question);
    }
    Asked { problem: Some(problem), retry, ..Asked::default() }
}

/// Asks in the background: a registry that is slow to answer does not keep nodes on their way waiting.
fn ask(context: &Arc<Context>, name: String, question: Question) {
    context.remember(&name, |memory| memory.asking = Some(question.clone()));
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let outcome = resolve::resolve(&question, context.registry.clone()).await;
        context.remember(&name, |memory| {
            if memory.asking.as_ref() == Some(&question) {
                memory.asking = None;
            }
            match outcome {
                Ok(resolved) => {
                    memory.failure = None;
                    memory.answer = Some((question, resolved));
                }
                Err(problem) => {
                    tracing::warn!(image = name, reason = problem.reason, "{}", problem.message);
                    let failure = Failure::new(question, problem, memory.failure.as_ref(), Instant::now());
                    memory.failure = Some(failure);
                }
            }
        });
        context.seen.stir();
    });
}

/// The nodes that the image selects or holds, and the plans among them that cannot be read.
fn fleet(context: &Context, image: &ManagedOSImage) -> (Snapshot, Vec<String>) {
    let me = Claimant::of(image);
    let images = context.seen.images.all();
    let mut all: Vec<Claimant> =
        images.iter().filter_map(|guarded| guarded.0.as_ref().ok()).map(Claimant::of).collect();
    if !all.iter().any(|claimant| claimant.uid == me.uid) {
        all.push(me.clone());
    }
    let mut unreadable = Vec::new();
    let mut plans: BTreeMap<String, Arc<crate::seen::Guarded<NodePlan>>> =
        context.seen.plans.all().into_iter().map(|plan| (plan.name_any(), plan)).collect();
    let mut snapshot = Snapshot::default();
    for node in context.seen.nodes.all() {
        let name = node.name_any();
        let guarded = plans.remove(&name);
        let plan = guarded.as_ref().and_then(|plan| plan.0.as_ref().ok());
        let claim = claim(&me, &all, node.labels(), plan);
        if let (Some(Err(invalid)), true) = (guarded.as_ref().map(|plan| &plan.0), claim.selected) {
            unreadable.push(format!("NodePlan {name} cannot be read ({})", invalid.error));
        }
        let mut seen = node_seen(&node, plan, &claim);
        seen.checks.avoided = marks::is_avoided(&node, &me.uid);
        let orphaned = |by: &String| !images.iter().any(|image| image.name_any() == *by);
        if seen.cordoned_by.as_ref().is_some_and(orphaned) && claim.selected && claim.other.is_none() {
            // Its image object went without giving it back, as when somebody removed the finalizer.
            seen.cordoned_by = Some(me.name.clone());
        }
        let held = claim.plan_is_ours
            || seen.checks.avoided
            || seen.cordoned_by.as_deref() == Some(me.name.as_str());
        if claim.selected || held {
            snapshot.nodes.insert(name, seen);
        } else if seen.control_plane && (!seen.ready || seen.unschedulable || in_turn(plan)) {
            snapshot.other_controllers_down.insert(name);
        }
    }
    // What is left are plans without a Node.
    for (name, guarded) in plans {
        let Ok(plan) = &guarded.0 else { continue };
        let claim = claim(&me, &all, &BTreeMap::new(), Some(plan));
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

/// Pods are not watched: those of a node are listed while it is that node's turn to be drained.
async fn look_at_drains(
    context: &Context,
    image: &ManagedOSImage,
    snapshot: &mut Snapshot,
) -> Result<(), ApiError> {
    let drain = &image.spec.drain;
    if !drain.enabled {
        return Ok(());
    }
    let now = Timestamp::now();
    let mut looks = Vec::new();
    for (name, node) in snapshot.nodes.iter().filter(|(_, node)| drains(node)) {
        let forced = node.disruption().is_some_and(|record| is_forced(drain, record, now));
        // A selector that cannot be used is said by the validation, and nothing is done.
        let Ok(rules) = drain::Rules::new(drain, forced, now) else { return Ok(()) };
        looks.push(
            async move { (name.clone(), drain::look(context, name, &rules, context.refused(name)).await) },
        );
    }
    // In a large fleet the last of them would wait for all the others.
    let seen: Vec<_> = stream::iter(looks).buffer_unordered(DRAINS_AT_ONCE).collect().await;
    for (name, seen) in seen {
        let seen = seen?;
        if seen == DrainSeen::Done {
            context.evicted(&name, None);
        }
        if let Some(node) = snapshot.nodes.get_mut(&name) {
            node.drain = seen;
        }
    }
    Ok(())
}

/// Whether it is this node's turn to be drained. Without the cordon a drain would only begin anew with each pod.
fn drains(node: &NodeSeen) -> bool {
    let before_reboot = |plan: &PlanSeen| matches!(plan.spec.target, None | Some(Target::Staged));
    let Some(record) = node.disruption() else { return false };
    let turned = |plan: &PlanSeen| plan.spec.target == Some(Target::Committed);
    let due = if record.going_back {
        node.phase() == Phase::Committed && node.plan.as_ref().is_some_and(turned)
    } else {
        node.phase() == Phase::Staged && node.plan.as_ref().is_some_and(before_reboot)
    };
    record.drained_at.is_none() && !node.gone && node.unschedulable && due
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
