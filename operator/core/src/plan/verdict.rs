//! What failures mean for the rollout.

use evenkeel_crds::{
    condition::Time,
    managed_os_image::Rejected,
    node_plan::TurnOutcome,
    rollout::{FailureAction, OnFirstFailure},
    rollout_status::Denied,
};
use jiff::{SignedDuration, Timestamp};

use super::failure::{Failure, Failures};
use crate::{
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

/// Longest message of a failure that is written down, in bytes; the schema allows 2048 characters.
const MESSAGE_MAX: usize = 2048;
/// Longest cause of a denial, in bytes; the schema allows 512 characters.
const CAUSE_MAX: usize = 512;
/// Images that are remembered as denied.
const DENIED_MAX: usize = 16;

/// What failures mean for the rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Why nothing is started any more.
    pub stopped: Option<String>,
    /// The failure behind it.
    pub rejected: Option<Rejected>,
    /// Images that nodes came back from.
    pub denied: Vec<Denied>,
    /// How many nodes the image failed on.
    pub failed: usize,
    /// What is done about it; nothing while the rollout goes on.
    pub action: Option<FailureAction>,
}

impl Verdict {
    /// Looks at all failures at once.
    pub fn of(
        policy: &Policy,
        snapshot: &Snapshot,
        failures: &Failures,
        proven: bool,
        now: Timestamp,
    ) -> Self {
        let ours = |name: &str| snapshot.nodes.get(name).is_some_and(NodeSeen::ours);
        let failures: Vec<(&str, &Failure)> = failures.finals().filter(|(name, _)| ours(name)).collect();
        let size = snapshot.nodes.values().filter(|node| node.ours()).count();
        let remembered = remembered(policy, snapshot);
        let seen = failures.first().map(|(name, failure)| rejection(policy, name, failure));
        let unseen = usize::from(
            remembered.as_ref().is_some_and(|old| !failures.iter().any(|(name, _)| *name == old.node)),
        );
        let failed = failures.len() + unseen;
        let release = policy.release().unwrap_or_default();
        let denial = policy.denied.iter().find(|denied| denied.digest == release);
        let excused = denial.filter(|denied| is_excused(policy, denied, now));
        let forgiven = excused.map_or(0, |denied| usize::try_from(denied.count).unwrap_or(0));
        let tolerated = forgiven + policy.tolerated(size);
        let first = policy.failure.on_first_failure == OnFirstFailure::Stop && !proven && failed > forgiven;
        let limit = policy.failure.max_consecutive_failures.and_then(|limit| usize::try_from(limit).ok());
        let in_a_row = limit.is_some_and(|limit| failed > forgiven && in_a_row(policy, snapshot) >= limit);
        let banned = denial.filter(|_| excused.is_none());
        let stops = first || in_a_row || failed > tolerated || banned.is_some();
        let mut verdict = Self { failed, denied: policy.denied.clone(), ..Self::default() };
        if stops {
            verdict.action = Some(policy.failure.action);
            verdict.rejected = seen.or(remembered);
            verdict.stopped = Some(match (&verdict.rejected, banned) {
                (Some(rejected), _) => stop_message(policy, rejected, failed),
                (None, Some(denied)) => denied_message(policy, denied),
                (None, None) => "too many nodes failed".to_owned(),
            });
        }
        verdict.deny(policy, &failures, excused.is_some(), proven, now);
        verdict
    }

    /// Keeps the list of denied images.
    fn deny(
        &mut self,
        policy: &Policy,
        failures: &[(&str, &Failure)],
        excused: bool,
        proven: bool,
        now: Timestamp,
    ) {
        let release = policy.release().unwrap_or_default();
        let over = |denied: &Denied| denied.until.is_some_and(|until| until.0 <= now);
        let redeemed = excused && failures.is_empty() && proven;
        self.denied.retain(|denied| if denied.digest == release { !redeemed } else { !over(denied) });
        let condemned = || failures.iter().filter(|(_, failure)| failure.condemned);
        let Some((name, failure)) = condemned().next().filter(|_| self.stopped.is_some() && !excused) else {
            return;
        };
        let count = i64::try_from(condemned().count()).unwrap_or(i64::MAX);
        if let Some(known) = self.denied.iter_mut().find(|denied| denied.digest == release) {
            known.count = known.count.max(count);
            return;
        }
        let until = policy.failure.deny_seconds.map(|seconds| Time(now + SignedDuration::from_secs(seconds)));
        let cause = cut(format!("{name}: {}", failure.why), CAUSE_MAX);
        if self.denied.len() >= DENIED_MAX {
            self.denied.remove(0);
        }
        self.denied.push(Denied { digest: release, cause, count, since: Time(now), until });
    }
}

/// Whether a denied image may be tried all the same: somebody said so, or enough time has passed.
fn is_excused(policy: &Policy, denied: &Denied, now: Timestamp) -> bool {
    policy.allowed.as_ref() == Some(&denied.digest) || denied.until.is_some_and(|until| until.0 <= now)
}

/// How many of the turns for this image that ended last failed, with none in between that did not.
fn in_a_row(policy: &Policy, snapshot: &Snapshot) -> usize {
    let mut turns: Vec<(Time, bool)> = snapshot
        .nodes
        .values()
        .filter(|node| node.ours())
        .filter_map(|node| node.plan.as_ref()?.spec.last_turn.as_ref())
        .filter(|turn| turn.outcome != TurnOutcome::Dropped && policy.attempt_of(&turn.plan_id).is_some())
        .map(|turn| (turn.until, turn.outcome == TurnOutcome::Failed))
        .collect();
    turns.sort_unstable();
    turns.iter().rev().take_while(|(_, failed)| *failed).count()
}

fn rejection(policy: &Policy, name: &str, failure: &Failure) -> Rejected {
    Rejected {
        digest: policy.release().unwrap_or_default(),
        node: name.to_owned(),
        message: cut(failure.why.clone(), MESSAGE_MAX),
        condemned: failure.condemned,
    }
}

fn cut(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}

/// The failure that was written down. A plan that was deleted tells nothing of it, but its node's agent will: only what
/// that says lifts it.
fn remembered(policy: &Policy, snapshot: &Snapshot) -> Option<Rejected> {
    let release = policy.release()?;
    let rejected = policy.rejected.clone().filter(|rejected| rejected.digest == release)?;
    let Some(node) = snapshot.nodes.get(&rejected.node).filter(|node| node.ours()) else {
        return rejected.condemned.then_some(rejected);
    };
    let reported = node.plan.as_ref().is_some_and(|plan| plan.status.host.is_some());
    (!reported).then_some(rejected)
}

fn stop_message(policy: &Policy, rejected: &Rejected, failed: usize) -> String {
    let Rejected { node, message, condemned, .. } = rejected;
    let image = policy.image.as_deref().unwrap_or_default();
    let why = message.trim_end_matches('.');
    let others = if failed > 1 { format!(" and {} more", failed - 1) } else { String::new() };
    let remedy = if *condemned {
        match policy.cloud_config {
            None => "Publish a fixed image and set it as osImage".to_owned(),
            Some(_) => "Publish a fixed image and set it as osImage, or correct cloudConfig".to_owned(),
        }
    } else {
        format!("Remove the cause and `kubectl delete nodeplan {node}` to try again, or set another osImage")
    };
    format!("{image} failed on {node} ({why}){others}; no other node gets it. {remedy}")
}

fn denied_message(policy: &Policy, denied: &Denied) -> String {
    let image = policy.image.as_deref().unwrap_or_default();
    let until = denied.until.map_or_else(String::new, |until| format!(" until {}", until.0));
    format!(
        "{image} is denied{until}: it failed on {} nodes ({}). Publish a fixed image, or set the annotation \
         evenkeel.dev/allow-digest to {} to try it all the same",
        denied.count,
        denied.cause.trim_end_matches('.'),
        denied.digest
    )
}
