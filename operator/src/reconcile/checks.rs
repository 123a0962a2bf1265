//! What is asked of the cluster about nodes in their turn and before it: gates, hooks, and whether they may leave service.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use evenkeel_crds::{
    ManagedOSImage,
    health_gate::GateTime,
    hook::Hook,
    names::{JOB_OF, JOB_TURN},
    node_plan::{Disruption, Phase},
};
use evenkeel_operator_core::{
    NodeSeen, Report, Snapshot,
    gates::{GateSeen, time},
    hooks::{HookSeen, JobSeen},
};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;

use crate::{
    api::ApiError,
    context::Context,
    gates::{self, Asked, Book, Question},
    jobs::{self, Of, What, turn_label},
};

/// Puts what is known into the snapshot. What has to be asked is asked in the background.
pub fn fill(context: &Arc<Context>, image: &Arc<ManagedOSImage>, snapshot: &mut Snapshot) {
    let uid = image.uid().unwrap_or_default();
    let jobs = if image.spec.hooks.is_empty() { Vec::new() } else { context.seen.jobs() };
    let jobs = by_turn(&jobs);
    for (name, node) in &mut snapshot.nodes {
        let Some(record) = node.disruption().cloned() else {
            node.checks.departure = context.book.departure(&uid, name, &before_turn(node));
            continue;
        };
        let turn = turn(node, &record);
        node.checks.gates = gates_of(context, image, name, node, &record, &turn);
        let label = turn_label(image, name, &turn);
        let mut seen: Vec<HookSeen> = jobs
            .get(label.as_str())
            .into_iter()
            .flatten()
            .filter_map(|job| {
                let name = job.labels().get(JOB_OF)?.strip_prefix("hook.")?.to_owned();
                Some(HookSeen { name, job: jobs::seen(job) })
            })
            .collect();
        for hook in &image.spec.hooks {
            let unmade = context.why_unmade(&of_hook(image, name, &turn, hook).name());
            seen.extend(unmade.map(|why| HookSeen { name: hook.name.clone(), job: JobSeen::Failed { why } }));
        }
        node.checks.hooks = seen;
    }
}

fn by_turn(jobs: &[Arc<Job>]) -> HashMap<&str, Vec<&Job>> {
    let mut by_turn: HashMap<&str, Vec<&Job>> = HashMap::new();
    for job in jobs {
        let turn = job.labels().get(JOB_TURN).map_or("", String::as_str);
        by_turn.entry(turn).or_default().push(job);
    }
    by_turn
}

/// Names a node's turn: a new one asks everything anew.
fn turn(node: &NodeSeen, record: &Disruption) -> String {
    let plan_id = node.plan.as_ref().and_then(|plan| plan.spec.plan_id.clone()).unwrap_or_default();
    format!("{plan_id}.{}", record.since.0.as_second())
}

/// Names what comes before a node's turn.
fn before_turn(node: &NodeSeen) -> String {
    node.plan.as_ref().and_then(|plan| plan.spec.plan_id.clone()).unwrap_or_default()
}

/// The gates of this time, once there is something to see: what was true before the drain, or before the reboot, says
/// nothing of what comes of it.
fn gates_of(
    context: &Arc<Context>,
    image: &Arc<ManagedOSImage>,
    name: &str,
    node: &NodeSeen,
    record: &Disruption,
    turn: &str,
) -> Vec<GateSeen> {
    let Some(when) = time(node) else { return Vec::new() };
    let ready = match when {
        GateTime::Before => false,
        GateTime::During => record.drained_at.is_some(),
        GateTime::After => {
            let there = record.live || node.boot_id != record.boot_id_before;
            node.ready && node.phase() == Phase::Trial && there
        }
    };
    if !ready {
        return Vec::new();
    }
    let asked = image
        .spec
        .health_gates
        .iter()
        .filter(|gate| gate.when.contains(&when) && gate.node_condition.is_none());
    asked
        .filter_map(|gate| {
            let question = Question {
                image: Arc::clone(image),
                node: name.to_owned(),
                when,
                turn: turn.to_owned(),
                gate: gate.clone(),
            };
            Book::look(context, question)
        })
        .collect()
}

/// Begins to find out what the decision wants to know.
pub fn ask(context: &Arc<Context>, image: &Arc<ManagedOSImage>, snapshot: &Snapshot, report: &Report) {
    let nodes = report.asks.iter().filter_map(|name| {
        let seen = snapshot.nodes.get(name)?;
        let leaves = !seen.stays_in_service();
        Some(Asked { node: name.clone(), turn: before_turn(seen), leaves })
    });
    gates::ask_departures(context, image, nodes.collect());
}

/// Takes back what is needed no longer: Jobs of turns that are over, questions that nobody has to answer.
pub async fn tidy(
    context: &Context,
    image: &Arc<ManagedOSImage>,
    snapshot: &Snapshot,
    report: &Report,
) -> Result<(), ApiError> {
    context.book.forget();
    gates::tidy(context, image, snapshot, report).await?;
    let jobs = context.seen.jobs();
    if jobs.is_empty() {
        return Ok(());
    }
    let turns: BTreeSet<String> = snapshot
        .nodes
        .iter()
        .map(|(name, node)| {
            let turn = node.disruption().map_or_else(|| before_turn(node), |record| turn(node, record));
            turn_label(image, name, &turn)
        })
        .collect();
    jobs::tidy(context, image, &jobs, &turns).await
}

/// Runs a hook of a node in its turn.
pub async fn run_hook(
    context: &Context,
    image: &Arc<ManagedOSImage>,
    name: &str,
    node: &NodeSeen,
    hook: &str,
) -> Result<(), ApiError> {
    let hook = image.spec.hooks.iter().find(|known| known.name == hook);
    let (Some(hook), Some(record)) = (hook, node.disruption()) else { return Ok(()) };
    let turn = turn(node, record);
    let of = of_hook(image, name, &turn, hook);
    if let Err(why) = jobs::run(context, &of, &hook.template).await? {
        tracing::warn!(node = name, hook = hook.name, why, "a hook's Job cannot be made");
        context.job_unmade(&of.name(), why);
    }
    Ok(())
}

fn of_hook<'a>(image: &'a Arc<ManagedOSImage>, node: &'a str, turn: &'a str, hook: &'a Hook) -> Of<'a> {
    Of {
        image,
        node,
        turn,
        what: What::Hook(&hook.name),
        step: hook.when.name(),
        timeout_seconds: hook.timeout_seconds,
    }
}
