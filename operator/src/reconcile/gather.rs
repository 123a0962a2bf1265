//! What the planner needs to know, from the watches, the API server and the registry.

mod etcd;
mod fleet;
mod place;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_crds::{
    ManagedOSImage,
    node_plan::{Phase, Target},
};
use evenkeel_operator_core::{DrainSeen, NodeSeen, PlanSeen, Snapshot, drain::is_forced};
use evenkeel_registry::Resolved;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use super::checks;
use crate::{
    api::ApiError,
    context::Context,
    drain,
    resolve::{self, Failure, Question},
    status::Problem,
};

/// Drains that are looked at together.
const DRAINS_AT_ONCE: usize = 16;

/// What was gathered.
#[derive(Default)]
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
    /// What is not understood of what somebody wants of a node.
    pub wrong: Option<String>,
    /// The fleet.
    pub snapshot: Snapshot,
}

/// Gathers what one look at `image` needs.
pub async fn gather(context: &Arc<Context>, image: &Arc<ManagedOSImage>) -> Result<Gathered, ApiError> {
    context.seen.plans.look_up(&Api::all(context.clients.main.clone())).await?;
    let asked = ask_registry(context, image);
    let fleet::Seen { snapshot, unreadable, wrong } = fleet::seen(context, image);
    let mut gathered = Gathered {
        image: asked.image,
        resolved_now: asked.resolved_now,
        problem: asked.problem,
        retry: asked.retry,
        unreadable,
        snapshot,
        wrong,
    };
    if let Some(node) = context.own_node.as_ref().and_then(|own| gathered.snapshot.nodes.get_mut(own)) {
        node.runs_operator = true;
    }
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
        // A selector that cannot be used is said by the validation, and nothing is asked to leave.
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
    let due = if record.reset.is_some() {
        node.plan.as_ref().is_some_and(|plan| plan.spec.reset.is_none())
    } else if record.going_back {
        node.phase() == Phase::Committed && node.plan.as_ref().is_some_and(turned)
    } else {
        node.phase() == Phase::Staged && node.plan.as_ref().is_some_and(before_reboot)
    };
    record.drained_at.is_none() && !node.gone && node.unschedulable && due
}
