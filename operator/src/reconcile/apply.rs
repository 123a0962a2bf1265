//! Does what was decided: one write for each action, and none to an object that is not what it was when it was read.

mod announce;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_crds::{
    ManagedOSImage, NodePlan, NodePlanSpec,
    condition::Time,
    merge::changing,
    names::{FINALIZER, OPERATOR_FIELD_MANAGER},
    node_plan::{Disruption, Target},
};
use evenkeel_operator_core::{Action, Decision, NodeSeen, Policy, Snapshot};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use self::announce::Announcement;
use super::{ReconcileError, checks};
use crate::{
    api::{ApiError, call},
    context::Context,
    drain, events,
    guarded::Guarded,
    marks,
    seen::KnownPlan,
};

/// Actions of one look; the rest is decided again on what was seen after them, so that a large fleet's status stays
/// fresh while it is written to.
const ACTIONS_MAX: usize = 100;
/// No action begins later in a look than this: on a server that is slow, a node that just became healthy would wait for
/// all that others have still to come. What is left is decided again.
const BEGIN_WITHIN: Duration = Duration::from_millis(250);
/// Actions at the same time, each on a node of its own. More of them only wait for the API server's store.
const AT_ONCE: usize = 16;

/// Does the actions. True if something was written that is worth another look at once.
pub async fn apply(
    context: &Context,
    image: &Arc<ManagedOSImage>,
    policy: &Policy,
    snapshot: &Snapshot,
    decision: &Decision,
) -> Result<bool, ReconcileError> {
    let stop = Stop { failed: AtomicBool::new(false), at: Instant::now() + BEGIN_WITHIN };
    let actions: Vec<_> = by_urgency(decision).collect();
    let announcement = Announcement::of(context, &policy.name, snapshot, actions.iter());
    let steps: Vec<_> = actions
        .iter()
        .map(|(name, action)| {
            let node = (*name, snapshot.nodes.get(*name));
            step(context, image, policy, node, action, (&stop, &announcement))
        })
        .collect();
    let outcomes: Vec<Result<bool, ReconcileError>> =
        stream::iter(steps).buffer_unordered(AT_ONCE).collect().await;
    announcement.remember(context, &policy.name);
    // Nodes do not wait for each other: one that is not what it was is told last.
    let stale = |error: &ReconcileError| matches!(error, ReconcileError::Api(error) if error.is_stale());
    let (mut again, mut failed) = (false, None);
    for outcome in outcomes {
        match outcome {
            Ok(worth) => again |= worth,
            Err(error) if failed.as_ref().is_none_or(stale) => failed = Some(error),
            Err(_) => {}
        }
    }
    failed.map_or(Ok(again), Err)
}

/// What keeps actions of a look from being begun.
struct Stop {
    failed: AtomicBool,
    at: Instant,
}

/// One action. None begins after one has failed, or too late; and what has begun is waited for: an answer that nobody
/// hears would be a write that the next decision does not know of.
async fn step(
    context: &Context,
    image: &Arc<ManagedOSImage>,
    policy: &Policy,
    (name, node): (&str, Option<&NodeSeen>),
    action: &Action,
    (stop, announcement): (&Stop, &Announcement),
) -> Result<bool, ReconcileError> {
    if stop.failed.load(Ordering::Relaxed) {
        return Ok(false);
    }
    if Instant::now() > stop.at && !asks_pods(action) {
        return Ok(true);
    }
    if !context.leadership.holds() {
        stop.failed.store(true, Ordering::Relaxed);
        return Err(ReconcileError::NotLeading);
    }
    let told = node.and_then(|node| events::of_action(name, node, action));
    events::publish(&context.recorder, image.as_ref(), told.as_slice()).await;
    announcement.tell(&context.recorder, image, name).await;
    let done = act(context, image, policy, (name, node), action).await;
    if let Err(error) = done {
        if !error.is_stale() {
            stop.failed.store(true, Ordering::Relaxed);
        }
        return Err(error.into());
    }
    announcement.done(name);
    tracing::info!(image = policy.name, node = name, ?action, "done");
    context.metrics.turns().did(action, node, &policy.reboot, Timestamp::now());
    Ok(!matches!(action, Action::Evict | Action::ForceOut | Action::Avoid(_)))
}

/// The actions of this look: nodes on trial first, then those whose turn ends, then others on their way, then those that
/// begin, then what only prepares a node; in a large fleet the first would wait for the last otherwise. Drains come at the
/// end, and all of them: they take long, are the same in the next look, and so would keep each other waiting if they were
/// cut short.
fn by_urgency(decision: &Decision) -> impl Iterator<Item = (&str, &Action)> {
    let actions = decision.actions.iter().map(|(name, action)| (name.as_str(), action));
    let (drains, mut writes): (Vec<_>, Vec<_>) = actions.partition(|(_, action)| asks_pods(action));
    writes.sort_by_key(|(_, action)| match action {
        Action::Commit | Action::Revert { .. } => 0,
        Action::Uncordon | Action::EndDisruption(_) => 1,
        Action::OrderStage { .. } | Action::BeginDisruption(_) => 3,
        Action::EnsurePlan | Action::ReleasePlan => 4,
        Action::Avoid(_) | Action::OrderRecovery(_) => 5,
        _ => 2,
    });
    writes.into_iter().take(ACTIONS_MAX).chain(drains)
}

fn asks_pods(action: &Action) -> bool {
    matches!(action, Action::Evict | Action::ForceOut)
}

async fn act(
    context: &Context,
    image: &Arc<ManagedOSImage>,
    policy: &Policy,
    (name, node): (&str, Option<&NodeSeen>),
    action: &Action,
) -> Result<(), ApiError> {
    match action {
        Action::EnsurePlan => create_plan(context, image, policy, name).await,
        Action::ReleasePlan => delete_plan(context, name).await,
        Action::Cordon => marks::cordon(context, name, policy).await,
        Action::Uncordon => marks::uncordon(context, name).await,
        Action::OrderReset(order) => {
            marks::check_wish(context, name, order.wipe).await?;
            self::order(context, image, policy, name, action).await
        }
        Action::ForgetReset { .. } => marks::forget_reset(context, name).await,
        Action::Avoid(avoided) => marks::avoid(context, name, policy, *avoided).await,
        Action::Evict | Action::ForceOut => {
            if !context.may_ask(name) {
                return Ok(());
            }
            let by_force = *action == Action::ForceOut;
            let Ok(rules) = drain::Rules::new(&policy.drain, by_force, Timestamp::now()) else {
                return Ok(());
            };
            let refused = drain::evict(context, name, &rules, by_force).await?;
            context.evicted(name, refused);
            Ok(())
        }
        Action::RunHook(hook) => match node {
            Some(node) => checks::run_hook(context, image, name, node, hook).await,
            None => Ok(()),
        },
        _ => order(context, image, policy, name, action).await,
    }
}

/// The plan's spec after an action that is a write to it.
fn after(spec: &NodePlanSpec, policy: &Policy, action: &Action) -> NodePlanSpec {
    let mut spec = spec.clone();
    match action {
        Action::OrderStage { plan_id, image, at } => {
            spec = NodePlanSpec {
                ordered_at: Some(Time(*at)),
                last_turn: spec.last_turn,
                plan_id: Some(plan_id.clone()),
                image: Some(image.clone()),
                cloud_config: policy.cloud_config.clone(),
                live: policy.applies_live(),
                target: Some(Target::Staged),
                commit_deadline_seconds: Some(policy.reboot.commit_deadline_seconds),
                pull: policy.pull.clone(),
                verification: policy.verification.clone(),
                ..NodePlanSpec::default()
            };
        }
        Action::BeginDisruption(record) => (spec.disruption, spec.reset) = (Some(record.clone()), None),
        Action::ApproveReboot { deadline } => {
            spec.target = Some(Target::Booted);
            spec.not_after = Some(Time(*deadline));
            note(&mut spec, |record| record.deadline = Some(Time(*deadline)));
        }
        Action::MarkDraining(at) => note(&mut spec, |record| record.draining_since = Some(Time(*at))),
        Action::MarkDrained(at) => note(&mut spec, |record| record.drained_at = Some(Time(*at))),
        Action::MarkHealthy(since) => note(&mut spec, |record| record.healthy_since = since.map(Time)),
        Action::Commit => spec.target = Some(Target::Committed),
        Action::OrderRecovery(order) => {
            // The settings of an order for the image are of no use any more: that is there.
            (spec.pull, spec.verification) = (policy.pull.clone(), policy.verification.clone());
            spec.recovery.clone_from(order);
        }
        Action::Revert { order, at } => {
            spec.target = Some(Target::Reverted);
            spec.revert = Some(order.clone());
            note(&mut spec, |record| record.deadline = record.deadline.max(Some(Time(*at))));
        }
        Action::EndDisruption(turn) => {
            spec.disruption = None;
            spec.last_turn = Some(turn.clone());
        }
        Action::OrderReset(order) => {
            spec.reset = Some(order.clone());
            // A machine that forgets what failed there must not find an approval that still holds.
            if let Some(record) = &spec.disruption {
                spec.not_after = spec.not_after.map(|at| at.min(record.since));
            }
            note(&mut spec, |record| record.deadline = Some(order.not_after));
        }
        Action::EndReset => (spec.disruption, spec.reset) = (None, None),
        Action::EnsurePlan
        | Action::ReleasePlan
        | Action::ForgetReset { .. }
        | Action::Cordon
        | Action::Evict
        | Action::ForceOut
        | Action::Avoid(_)
        | Action::RunHook(_)
        | Action::Uncordon => {}
    }
    spec
}

/// Writes something down of the node's turn.
fn note(spec: &mut NodePlanSpec, write: impl FnOnce(&mut Disruption)) {
    if let Some(record) = &mut spec.disruption {
        write(record);
    }
}

/// The change that an action is to a plan, on the version that was read. What stays, or a later version wrote, is left alone.
/// The plan belongs to its image object: without it nobody is left who could order anything.
///
/// Who owns which field is not kept: the rights of operator and agents settle that, and the account of it, which the API
/// server renews with each write, costs it more than the write itself. One empty entry ends it.
fn change(
    plan: &KnownPlan,
    image: &ManagedOSImage,
    policy: &Policy,
    action: &Action,
) -> Result<Value, serde_json::Error> {
    let known = serde_json::to_value(&*plan.spec)?;
    let spec = after(&plan.spec, policy, action);
    let wanted = serde_json::to_value(&spec)?;
    let others = plan.owner_references().iter().filter(|owner| owner.controller != Some(true)).cloned();
    let owners: Vec<OwnerReference> = others.chain(image.controller_owner_ref(&())).collect();
    Ok(json!({
        "metadata": {
            "uid": plan.uid(),
            "resourceVersion": plan.resource_version(),
            "ownerReferences": owners,
            "finalizers": finalizers(plan, &spec),
            "managedFields": [{}],
        },
        "spec": changing(&known, &wanted),
    }))
}

/// A plan stays until its node's turn has ended, whoever deletes it: without it the agent is told nothing more, and a
/// deletion in the foreground takes those of all nodes in their turn at once. One that is being deleted cannot be held any
/// more.
fn finalizers(plan: &KnownPlan, spec: &NodePlanSpec) -> Vec<String> {
    let is_late = plan.metadata.deletion_timestamp.is_some() && !has_finalizer(plan);
    let ours = (spec.disruption.is_some() && !is_late).then(|| FINALIZER.to_owned());
    let others = plan.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
    others.chain(ours).collect()
}

fn has_finalizer(plan: &KnownPlan) -> bool {
    plan.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

async fn create_plan(
    context: &Context,
    image: &ManagedOSImage,
    policy: &Policy,
    name: &str,
) -> Result<(), ApiError> {
    let plan = new_plan(image, policy, name);
    let params = PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PostParams::default() };
    let created = call(format!("create NodePlan {name}"), plans(context).create(&params, &plan)).await?;
    context.seen.plans.wrote(Guarded(Ok(created.into())));
    Ok(())
}

/// A plan without an order, of which nobody keeps who owns which field, see [`change`].
fn new_plan(image: &ManagedOSImage, policy: &Policy, name: &str) -> NodePlan {
    let mut plan = NodePlan::new(name, NodePlanSpec { pull: policy.pull.clone(), ..NodePlanSpec::default() });
    plan.metadata.owner_references = image.controller_owner_ref(&()).map(|owner| vec![owner]);
    plan.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
    plan
}

/// Writes the plan's spec, on the version that was read: an agent's report or another operator's order that
/// came in between makes this a conflict, and the decision is made again.
async fn order(
    context: &Context,
    image: &ManagedOSImage,
    policy: &Policy,
    name: &str,
    action: &Action,
) -> Result<(), ApiError> {
    let what = format!("write the order of NodePlan {name}");
    let plan = seen_plan(context, name, &what)?;
    let Ok(plan) = &plan.0 else { return Err(ApiError::Conflict { what }) };
    let change = change(plan, image, policy, action).map_err(kube::Error::SerdeError);
    write(context, plan, change, what).await.map(|_| ())
}

/// The answer is the plan as it is then, if it is still there: one that was deleted goes with its finalizer.
async fn write(
    context: &Context,
    plan: &KnownPlan,
    change: Result<Value, kube::Error>,
    what: String,
) -> Result<Option<KnownPlan>, ApiError> {
    let name = plan.name_any();
    let params = PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = async { plans(context).patch(&name, &params, &Patch::Merge(change?)).await };
    let written = call(what, patch).await.inspect_err(|error| {
        note_gone(context, &name, plan.uid(), error);
        if error.is_unanswered() {
            context.seen.plans.unanswered(&name);
        }
    })?;
    if written.metadata.deletion_timestamp.is_some() && written.finalizers().is_empty() {
        context.seen.plans.deleted(&name, plan.uid());
        return Ok(None);
    }
    let written = KnownPlan::from(written);
    context.seen.plans.wrote(Guarded(Ok(written.clone())));
    Ok(Some(written))
}

async fn delete_plan(context: &Context, name: &str) -> Result<(), ApiError> {
    let what = format!("delete NodePlan {name}");
    let plan = seen_plan(context, name, &what)?;
    let (uid, mut resource_version) = (plan.uid(), plan.resource_version());
    if let Ok(plan) = &plan.0
        && has_finalizer(plan)
    {
        // The record of a turn whose node is gone.
        let kept = finalizers(plan, &NodePlanSpec::default());
        let metadata = json!({ "uid": uid, "resourceVersion": resource_version, "finalizers": kept });
        match write(context, plan, Ok(json!({ "metadata": metadata })), what.clone()).await? {
            Some(let_go) => resource_version = let_go.resource_version(),
            None => return Ok(()),
        }
    }
    let preconditions = Preconditions { uid: uid.clone(), resource_version };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let deleted = call(what, plans(context).delete(name, &params)).await;
    deleted.inspect_err(|error| note_gone(context, name, uid.clone(), error))?;
    context.seen.plans.deleted(name, uid);
    Ok(())
}

fn note_gone(context: &Context, name: &str, uid: Option<String>, error: &ApiError) {
    if matches!(error, ApiError::NotFound { .. }) {
        context.seen.plans.deleted(name, uid);
    }
}

fn plans(context: &Context) -> Api<NodePlan> {
    Api::all(context.clients.main.clone())
}

fn seen_plan(context: &Context, name: &str, what: &str) -> Result<Arc<Guarded<KnownPlan>>, ApiError> {
    context.seen.plans.get(name).ok_or_else(|| ApiError::NotFound { what: what.to_owned() })
}

#[cfg(test)]
mod tests;
