//! What counts as a failure of the image on a node.

use std::collections::BTreeMap;

use evenkeel_crds::{
    cloud_config::digest_of,
    condition::{ConditionStatus, Time},
    node_plan::{Disruption, NodePlanStatus, Phase, ResetOrder, RollbackCause, Target},
};
use jiff::{SignedDuration, Timestamp};

use super::fleet::updated;
use crate::{
    drain,
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

/// Longest pause between two attempts of a node.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Why the image that is wanted counts as failed on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub why: String,
    /// Whether the machine itself refuses the image for good.
    pub condemned: bool,
    /// When it is tried again; absent when it is not.
    pub again: Option<Timestamp>,
}

impl Failure {
    /// Whether it is not tried again.
    pub fn is_final(&self) -> bool {
        self.again.is_none()
    }
}

/// The failures of the image in a fleet, found out once in a look.
pub struct Failures<'a>(BTreeMap<&'a str, Failure>);

impl<'a> Failures<'a> {
    /// Looks at every node.
    pub fn of(policy: &Policy, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let failed = |(name, node): (&'a String, &NodeSeen)| Some((name.as_str(), of(policy, node, now)?));
        Self(snapshot.nodes.iter().filter_map(failed).collect())
    }

    /// The failure on this node.
    pub fn on(&self, name: &str) -> Option<&Failure> {
        self.0.get(name)
    }

    /// Whether the image failed on this node and is not tried there again.
    pub fn is_final(&self, name: &str) -> bool {
        self.on(name).is_some_and(Failure::is_final)
    }

    /// All that are final, by node.
    pub fn finals(&self) -> impl Iterator<Item = (&'a str, &Failure)> {
        self.0.iter().filter(|(_, failure)| failure.is_final()).map(|(name, failure)| (*name, failure))
    }
}

/// The failure of the image that is wanted on this node, if it failed there.
fn of(policy: &Policy, node: &NodeSeen, now: Timestamp) -> Option<Failure> {
    let plan = node.plan.as_ref()?;
    policy.image.as_deref().and_then(digest_of)?;
    if policy.is_ordered_by(&plan.spec)
        && let Some(why) = lost(policy, node, now)
    {
        return Some(Failure { why, condemned: false, again: None });
    }
    if updated(policy, node)
        || node.unmanageable()
        || taken_back(policy, node)
        || refused_without_reboot(policy, node)
    {
        return None;
    }
    let over = matches!(node.phase(), Phase::RolledBack | Phase::Failed);
    if !over && plan.status.bad_digests.is_empty() {
        // So it is of most nodes: what follows puts texts together.
        return None;
    }
    let release = policy.release()?;
    let condemned = plan.status.bad_digests.contains(&release);
    let of_this_release = plan.spec.order().is_some_and(|order| order.release() == release);
    if of_this_release && over {
        let again = if condemned { None } else { again(policy, node, now) };
        return Some(Failure { why: said(&plan.status), condemned, again });
    }
    condemned.then(|| Failure { why: "it failed there before".to_owned(), condemned, again: None })
}

/// Whether the node left the image that is wanted because its rollout was taken back.
pub fn taken_back(policy: &Policy, node: &NodeSeen) -> bool {
    let Some(plan) = &node.plan else { return false };
    let cause = plan.status.rolled_back.as_ref().map(|back| back.cause);
    policy.is_ordered_by(&plan.spec)
        && node.phase() == Phase::RolledBack
        && cause == Some(RollbackCause::Rollout)
}

/// Whether the node could not do without a reboot, and may reboot by now: its agent takes the same order anew.
fn refused_without_reboot(policy: &Policy, node: &NodeSeen) -> bool {
    let Some(status) = node.plan.as_ref().map(|plan| &plan.status) else { return false };
    let condemned = policy.release().is_some_and(|release| status.bad_digests.contains(&release));
    status.phase == Phase::Failed && status.live && !policy.applies_live() && !condemned
}

/// When a node that failed without a word against the image tries it again.
fn again(policy: &Policy, node: &NodeSeen, now: Timestamp) -> Option<Timestamp> {
    let plan = node.plan.as_ref()?;
    let attempt = policy.attempt_of(plan.spec.plan_id.as_ref()?)?;
    if attempt >= policy.failure.max_attempts {
        return None;
    }
    let turn = plan.spec.last_turn.as_ref().filter(|turn| Some(&turn.plan_id) == plan.spec.plan_id.as_ref());
    let stalled = plan.status.conditions.iter().find(|condition| condition.r#type == "Stalled");
    let stalled = stalled.filter(|condition| condition.status == ConditionStatus::True);
    // A node's clock may be ahead of ours: what it says of the future is not believed.
    let failed_at = [
        turn.map(|turn| turn.until),
        stalled.map(|condition| condition.last_transition_time),
        plan.spec.ordered_at,
    ]
    .into_iter()
    .flatten()
    .filter(|Time(at)| *at <= now)
    .max();
    Some(failed_at.map_or(now, |Time(at)| at + backoff(policy, attempt)))
}

fn backoff(policy: &Policy, attempt: i32) -> SignedDuration {
    let doubled = u32::try_from(attempt - 1).unwrap_or(0).min(20);
    SignedDuration::from_secs(policy.failure.backoff_seconds.saturating_mul(1 << doubled)).min(BACKOFF_MAX)
}

/// When a node in its turn has had the time for all that it was told, and to come back once more. One that cannot be
/// reached goes back by itself when it is not committed; nobody waits for it for ever.
pub fn lost_at(policy: &Policy, record: &Disruption, target: Option<Target>) -> Timestamp {
    let seconds = SignedDuration::from_secs;
    let told = record.deadline.map_or_else(|| drain::deadline(&policy.drain, record), |time| time.0);
    let soaked = record.healthy_since.map_or(told, |since| since.0 + policy.soak);
    let commit = if target == Some(Target::Committed) { policy.reboot.commit_deadline_seconds } else { 0 };
    told.max(soaked) + seconds(policy.reboot.deadline_seconds) + seconds(commit)
}

/// Why the node counts as lost: it was told to reboot, to apply or keep something, or to go back, and was not heard of for
/// too long. That holds for whichever image it was told of: nobody waits for it when another one is wanted since.
pub fn lost(policy: &Policy, node: &NodeSeen, now: Timestamp) -> Option<String> {
    let plan = node.plan.as_ref()?;
    let record = node.disruption().filter(|record| record.reset.is_none())?;
    // One on trial was heard of: what it waits for has its own time.
    let told = match plan.spec.target {
        Some(Target::Booted) if node.phase() == Phase::Trial => return None,
        Some(Target::Booted) if record.live => "apply its cloud-config",
        Some(Target::Booted) => "reboot",
        Some(Target::Reverted) => "go back",
        Some(Target::Committed) => "keep what it runs",
        None | Some(Target::Staged) => return None,
    };
    // One that was told to leave what it kept has not ended while it keeps it.
    let ended =
        has_ended(node) && (node.phase() != Phase::Committed || plan.spec.target != Some(Target::Reverted));
    let at = lost_at(policy, record, plan.spec.target);
    (!ended && now >= at).then(|| {
        format!("it was not heard of since it was told to {told}, and should have been by {at}: look at the machine")
    })
}

/// Whether a machine that was told to begin anew has had the time for it, and to come back.
pub fn stays_away_after_reset(policy: &Policy, node: &NodeSeen, now: Timestamp) -> bool {
    let order = node.plan.as_ref().and_then(|plan| plan.spec.reset.as_ref());
    order.is_some_and(|order| now >= reset_until(policy, order))
}

/// Until when it is waited for: the machine may begin anew until the last moment.
pub fn reset_until(policy: &Policy, order: &ResetOrder) -> Timestamp {
    order.not_after.0 + SignedDuration::from_secs(policy.reboot.deadline_seconds)
}

/// Whether the node said how its attempt ended.
fn has_ended(node: &NodeSeen) -> bool {
    matches!(node.phase(), Phase::RolledBack | Phase::Failed | Phase::Committed)
}

/// Whether nothing is left of the node's turn but that it is not Ready.
pub fn stays_away(node: &NodeSeen) -> bool {
    !node.ready && has_ended(node)
}

fn said(status: &NodePlanStatus) -> String {
    if let Some(back) = &status.rolled_back {
        return format!("{:?}: {}", back.cause, back.message);
    }
    status.error.as_ref().map_or_else(|| "no reason given".to_owned(), |error| error.message.clone())
}
