//! One look at an image object: gather, validate, plan, apply, update the status.

mod apply;
mod checks;
mod cloud_config;
mod finalizer;
mod gather;
mod promote;
mod update_status;
mod validate;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_crds::ManagedOSImage;
use evenkeel_operator_core::{Decision, NodeState, Policy, Report, check, plan};
use futures::future;
use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action};

use crate::{
    api::{ApiError, with_causes},
    context::Context,
    guarded::Guarded,
    lifecycle, resolve,
    status::{ImageSeen, Problem},
};

/// Something was done: what comes next is decided as soon as changes that come together were waited for. What was written
/// is known without the watches.
const SOON: Duration = Duration::ZERO;
/// What is due and yet not done waits for something that is not seen to change.
const DUE_AGAIN: Duration = Duration::from_millis(300);
/// Pods that leave are not watched, but looked at.
const DRAIN_LOOK: Duration = Duration::from_secs(3);
/// Even if nothing is seen to change: a watch may miss something, and clocks of others move.
const AT_LEAST: Duration = Duration::from_mins(5);
/// First and longest pause after an error.
const ERROR_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call to the API server failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// This replica does not hold the lease any more.
    #[error("this replica does not hold the lease any more: another one goes on")]
    NotLeading,
}

impl ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Api(error) => error.reason(),
            Self::NotLeading => "NotLeading",
        }
    }
}

/// Looks at an image object once.
pub async fn reconcile(
    object: Arc<Guarded<ManagedOSImage>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let (name, begun) = (object.name_any(), Instant::now());
    let outcome = look(&name, &context).await;
    if context.seen.images.get(&name).is_some() {
        context.metrics.looked(&name, begun.elapsed());
    }
    outcome
}

/// When to look again after an error.
pub fn after_error(object: &Guarded<ManagedOSImage>, error: &ReconcileError, context: &Context) -> Action {
    let name = object.name_any();
    context.metrics.reconcile_failed(error.reason());
    if let ReconcileError::Api(error) = error {
        context.metrics.api_failed(error.reason());
        if error.is_stale() {
            tracing::debug!(image = name, %error, "looking again");
            return Action::requeue(ERROR_PAUSE.0);
        }
    }
    tracing::warn!(image = name, error = with_causes(error), "a look failed; trying again");
    let errors = context.remember(&name, |memory| {
        memory.errors = memory.errors.saturating_add(1);
        memory.errors
    });
    let (first, longest) = ERROR_PAUSE;
    Action::requeue(first.saturating_mul(1 << (errors - 1).min(10)).min(longest))
}

async fn look(name: &str, context: &Arc<Context>) -> Result<Action, ReconcileError> {
    let Some(object) = context.seen.images.get(name) else { return Ok(Action::await_change()) };
    let image = match &object.0 {
        Ok(image) => image,
        Err(invalid) => {
            update_status::unreadable(context, name, invalid).await?;
            return Ok(Action::requeue(AT_LEAST));
        }
    };
    if !context.leadership.holds() {
        return Err(ReconcileError::NotLeading);
    }
    context.note_generation(name, image.metadata.generation);
    let deleting = image.metadata.deletion_timestamp.is_some();
    match (deleting, finalizer::is_set(image)) {
        (true, false) => {
            context.metrics.forget(name);
            context.forget(name);
            return Ok(Action::await_change());
        }
        (false, false) => {
            finalizer::set(context, image).await?;
            return Ok(Action::requeue(SOON));
        }
        _ => {}
    }
    follow(context, &Arc::new(image.clone())).await
}

/// The five steps.
async fn follow(context: &Arc<Context>, image: &Arc<ManagedOSImage>) -> Result<Action, ReconcileError> {
    if promote::promote(context, image).await? {
        // Kept before anything is done with it.
        return Ok(Action::requeue(SOON));
    }
    let gathered = gather::gather(context, image).await?;
    if let Some(resolved) = &gathered.resolved_now {
        // Kept before anything is done with it: what this tag means is asked once in a rollout.
        update_status::resolved(context, image, resolved).await?;
        return Ok(Action::requeue(SOON));
    }
    let seen = ImageSeen::of(&image.status.clone().unwrap_or_default());
    let mut followed = validate::validate(image, gathered.image.as_deref(), &gathered.unreadable);
    let now = Timestamp::now();
    followed.policy.minimum = resolve::minimum(image, &context.seen);
    let policy = &followed.policy;
    let begun = Instant::now();
    let mut decision = plan(policy, &gathered.snapshot, now);
    context.metrics.decided(begun.elapsed());
    decision.report.notes = validate::wishes(image).wrong.into_iter().chain(gathered.wrong.clone()).collect();
    followed.restrain(&gathered, now, &mut decision);
    if let Some(problem) = refuse(policy, &gathered, now, &decision) {
        update_status::update(context, image, seen, Some(&problem), None).await?;
        return Ok(Action::requeue(AT_LEAST));
    }
    checks::ask(context, image, &gathered.snapshot, &decision.report);
    let told = Some((&decision.report, &gathered.snapshot));
    let problem = followed.problem.as_ref().or(gathered.problem.as_ref());
    // Neither needs the other, and nodes wait for the end of a look.
    let (applied, shown) =
        future::join(apply::apply(context, image, policy, &gathered.snapshot, &decision), async {
            lifecycle::publish(context, policy, &gathered.snapshot).await;
            update_status::update(context, image, seen, problem, told).await
        })
        .await;
    let again = applied?;
    checks::tidy(context, image, &gathered.snapshot, &decision.report).await?;
    let held_back = shown?;
    context.remember(&policy.name, |memory| memory.errors = 0);
    if decision.report.released {
        finalizer::remove(context, image).await?;
        return Ok(Action::requeue(SOON));
    }
    if again {
        return Ok(Action::requeue(SOON));
    }
    let later = [gathered.retry, held_back].into_iter().flatten().min();
    Ok(Action::requeue(next_look(&decision.report, later, now)))
}

/// A decision that breaks a rule is a bug in the planner, and is not acted on.
fn refuse(
    policy: &Policy,
    gathered: &gather::Gathered,
    now: Timestamp,
    decision: &Decision,
) -> Option<Problem> {
    let broken = check::violations(policy, &gathered.snapshot, now, &decision.actions);
    if broken.is_empty() {
        return None;
    }
    let broken = broken.join("; ");
    tracing::error!(image = policy.name, broken, actions = ?decision.actions, "a decision is refused");
    let message = format!(
        "nothing is done, because the decision broke a rule ({broken}): this is a bug in the operator, please report \
         it with the operator's log"
    );
    Some(Problem::lasting("UnsafeDecision", message))
}

fn next_look(report: &Report, retry: Option<Duration>, now: Timestamp) -> Duration {
    let wake = report.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    let draining = report.count(|state| matches!(state, NodeState::Draining { .. })) > 0;
    let soonest = [wake, retry, draining.then_some(DRAIN_LOOK)].into_iter().flatten().min();
    soonest.unwrap_or(AT_LEAST).clamp(DUE_AGAIN, AT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_when_something_is_due() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |seconds: i64| Some(now + jiff::SignedDuration::from_secs(seconds));
        let mut report = Report::default();
        assert_eq!(next_look(&report, None, now), AT_LEAST);
        report.wake_at = at(40);
        assert_eq!(next_look(&report, None, now), Duration::from_secs(40));
        assert_eq!(next_look(&report, Some(Duration::from_secs(5)), now), Duration::from_secs(5));
        report.wake_at = at(-3);
        assert_eq!(next_look(&report, None, now), DUE_AGAIN);
        report.wake_at = at(9000);
        assert_eq!(next_look(&report, None, now), AT_LEAST);
        report.nodes.insert("n1".into(), NodeState::Draining { pods: 1, blocked_by: None, overdue: false });
        assert_eq!(next_look(&report, None, now), DRAIN_LOOK);
    }
}
