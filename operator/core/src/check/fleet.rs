//! What must be true of all turns together, for a new one to begin.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_crds::{
    cloud_config::OrderedCloudConfig,
    node_plan::{Disruption, Phase, RollbackCause, SlotState, Target},
    quantity::CountOrPercent,
    rollout::{FailureAction, OnFirstFailure},
};
use jiff::{SignedDuration, Timestamp};

use super::{clock, reset_order};
use crate::{
    plan::Action,
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

pub fn ours(node: &NodeSeen) -> bool {
    node.selected && !node.gone && node.claimed_by_other.is_none()
}

pub fn recorded(node: &NodeSeen) -> bool {
    node.plan.as_ref().is_some_and(|plan| plan.spec.disruption.is_some())
}

fn down(node: &NodeSeen) -> bool {
    !node.ready || node.unschedulable || recorded(node)
}

/// What is rolled out, said a second time.
fn digest(policy: &Policy) -> Option<String> {
    wanted(policy.image.as_deref(), policy.cloud_config.as_ref())
}

fn wanted(image: Option<&str>, config: Option<&OrderedCloudConfig>) -> Option<String> {
    let digest = image?.split('@').nth(1)?;
    Some(config.map_or_else(|| digest.to_owned(), |config| format!("{digest}+{:.16}", config.sha256)))
}

fn runs(policy: &Policy, node: &NodeSeen) -> bool {
    let Some(plan) = &node.plan else { return false };
    let booted = plan.status.booted.as_ref().map(|booted| booted.digest.clone());
    booted.is_some()
        && booted == digest(policy)
        && matches!(plan.status.phase, Phase::Idle | Phase::Committed)
}

/// Nodes on which the wanted digest failed for good: those that say so, those that were told to reboot and are long
/// overdue, and the one that was written down.
pub fn spoilt(policy: &Policy, seen: &Snapshot, now: Timestamp) -> BTreeSet<String> {
    let Some(digest) = digest(policy) else { return BTreeSet::new() };
    let spoken = |name: &str| {
        let node = seen.nodes.get(name).filter(|node| ours(node));
        node.and_then(|node| node.plan.as_ref()).is_some_and(|plan| plan.status.host.is_some())
    };
    let told = seen.nodes.iter().filter(|(_, node)| ours(node) && failed(policy, &digest, node, now));
    let written =
        policy.rejected.iter().filter(|old| old.condemned && old.digest == digest && !spoken(&old.node));
    told.map(|(name, _)| name.clone()).chain(written.map(|old| old.node.clone())).collect()
}

fn failed(policy: &Policy, digest: &str, node: &NodeSeen, now: Timestamp) -> bool {
    let Some(plan) = &node.plan else { return false };
    let ordered = wanted(plan.spec.image.as_deref(), plan.spec.cloud_config.as_ref());
    let same = ordered.as_deref() == Some(digest);
    let current = plan.status.plan_id.is_some() && plan.status.plan_id == plan.spec.plan_id;
    let ended = match plan.status.phase {
        Phase::RolledBack => current,
        // It could not do without a reboot; where it may have one, it has only begun.
        Phase::Failed => current && (!plan.status.live || !policy.reboot.on_cloud_config_change),
        _ => false,
    };
    let back = plan.status.rolled_back.as_ref().map(|back| back.cause);
    let manageable = plan.status.host.as_ref().is_none_or(|host| host.manageable);
    let condemned = plan.status.bad_digests.iter().any(|bad| bad == digest);
    let attempt = plan.spec.plan_id.as_deref().and_then(|id| id.rsplit('-').next()?.parse::<i32>().ok());
    let tries_again = !condemned && attempt.is_some_and(|attempt| attempt < policy.failure.max_attempts);
    let taken_back = same && ended && back == Some(RollbackCause::Rollout);
    let spoken = manageable && !taken_back && !runs(policy, node);
    (spoken && (condemned || same && ended && !tries_again)) || same && is_overdue(policy, node, now)
}

/// Whether a node had the time for everything that it was told, and to come back once more.
fn is_overdue(policy: &Policy, node: &NodeSeen, now: Timestamp) -> bool {
    let Some(plan) = &node.plan else { return false };
    let Some(record) = plan.spec.disruption.as_ref().filter(|record| record.reset.is_none()) else {
        return false;
    };
    let current = plan.status.plan_id.is_some() && plan.status.plan_id == plan.spec.plan_id;
    let kept = plan.status.phase == Phase::Committed && plan.spec.target != Some(Target::Reverted);
    let ended = current && (kept || matches!(plan.status.phase, Phase::RolledBack | Phase::Failed));
    let on_trial = current && plan.status.phase == Phase::Trial && plan.spec.target == Some(Target::Booted);
    let told = plan.spec.target.is_some_and(|target| target != Target::Staged) && !on_trial;
    let drained = record.draining_since.unwrap_or(record.since).0
        + SignedDuration::from_secs(policy.drain.timeout_seconds);
    let ready_by = record.deadline.map_or(drained, |deadline| deadline.0);
    let soaked = record.healthy_since.map(|since| since.0 + policy.soak);
    let commit =
        if plan.spec.target == Some(Target::Committed) { policy.reboot.commit_deadline_seconds } else { 0 };
    let patience = SignedDuration::from_secs(policy.reboot.deadline_seconds + commit);
    told && !ended && now >= ready_by.max(soaked.unwrap_or(ready_by)) + patience
}

fn begins_anew(node: &NodeSeen) -> bool {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    record.is_some_and(|record| record.reset.is_some())
}

/// Whether a machine that was told to begin anew is long overdue.
pub fn stays_away_after_reset(policy: &Policy, node: &NodeSeen, now: Timestamp) -> bool {
    let patience = SignedDuration::from_secs(policy.reboot.deadline_seconds);
    reset_order(node).is_some_and(|order| now >= order.not_after.0 + patience)
}

/// Whether a node's turn has ended but for its being Ready.
fn stays_away(node: &NodeSeen) -> bool {
    let phase = node.plan.as_ref().map(|plan| &plan.status.phase);
    !node.ready && matches!(phase, Some(Phase::Committed | Phase::RolledBack | Phase::Failed))
}

/// Whether failures have stopped the rollout.
pub fn is_stopped(policy: &Policy, seen: &Snapshot, now: Timestamp) -> bool {
    let Some(digest) = digest(policy) else { return false };
    let denied = policy.denied.iter().find(|denied| denied.digest == digest);
    let excused = denied.filter(|denied| {
        policy.allowed.as_ref() == Some(&digest) || denied.until.is_some_and(|until| until.0 <= now)
    });
    if denied.is_some() && excused.is_none() {
        return true;
    }
    let forgiven = excused.map_or(0, |denied| usize::try_from(denied.count).unwrap_or(0));
    let failures = spoilt(policy, seen, now).len();
    let size = seen.nodes.values().filter(|node| ours(node)).count();
    let proven = seen.nodes.values().any(|node| ours(node) && runs(policy, node));
    let first = policy.failure.on_first_failure == OnFirstFailure::Stop && !proven;
    let tolerated =
        policy.failure.max_failures.as_ref().and_then(|max| CountOrPercent::tolerated(max, size).ok());
    failures > forgiven + if first { 0 } else { tolerated.unwrap_or(0) }
}

pub fn starts(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    actions: &[(String, Action)],
    found: &mut Vec<String>,
) {
    let begun = |is: fn(&Disruption) -> bool| -> BTreeSet<&str> {
        let begins = |action: &Action| matches!(action, Action::BeginDisruption(new) if is(new));
        actions.iter().filter(|(_, action)| begins(action)).map(|(name, _)| name.as_str()).collect()
    };
    let started = begun(|new| !new.going_back && new.reset.is_none());
    let going_back = begun(|new| new.going_back && new.reset.is_none());
    let anew = begun(|new| new.reset.is_some());
    let leaving: BTreeSet<&str> = started.union(&anew).copied().collect();
    if leaving.is_empty() && going_back.is_empty() {
        return;
    }
    let mut rule = |broken: bool, text: &str| {
        if broken {
            found.push(text.to_owned());
        }
    };
    rule(policy.dry_run, "started in a dry run");
    rule(policy.deleting, "started after a deletion");
    let paused = policy.pauses.iter().any(|pause| pause.until.is_none_or(|until| until.0 > now));
    rule(paused, "started while paused");
    let wished = policy.run_now.as_ref().is_some_and(|wish| wish.until.0 > now);
    let open = wished || clock::is_open(&policy.rollout.windows, &policy.rollout.exclusions, now);
    rule(!open, "started outside of a window");
    let stopped = is_stopped(policy, seen, now);
    rule(stopped && !started.is_empty(), "started after a failure");
    rule(
        !stopped
            && !going_back.is_empty()
            && policy.rejected.is_none()
            && policy.failure.max_consecutive_failures.is_none(),
        "went back without a failure",
    );
    rule(
        policy.failure.action != FailureAction::RevertAll && !going_back.is_empty(),
        "went back against the policy",
    );
    let reversible = |name: &&&str| {
        let plan = seen.nodes[**name].plan.as_ref();
        let other = plan.is_some_and(|plan| {
            let runs = plan.status.booted.as_ref().map(|booted| &booted.slot);
            plan.status.live
                || plan
                    .status
                    .slots
                    .iter()
                    .any(|slot| slot.state == SlotState::Complete && Some(&slot.name) != runs)
        });
        !other
    };
    rule(going_back.iter().any(|name| reversible(&name)), "went back without a slot to go back to");
    if !leaving.is_empty() {
        // One look that sends nodes back and takes others out of service counts all of them.
        budgets(policy, seen, now, &leaving.union(&going_back).copied().collect(), found);
    }
    if !started.is_empty() {
        domains(policy, seen, now, &started, found);
        steps(policy, seen, now, &started, found);
    }
    if !going_back.is_empty() {
        return_trips(policy, seen, now, &going_back, found);
    }
    controllers(seen, &leaving.union(&going_back).copied().collect(), found);
}

fn budgets(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    started: &BTreeSet<&str>,
    found: &mut Vec<String>,
) {
    let spoilt = spoilt(policy, seen, now);
    let out = |name: &str, node: &NodeSeen| {
        down(node) || started.contains(name) || ours(node) && spoilt.contains(name)
    };
    let mut total = (0, 0);
    let mut domains: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, node) in seen.nodes.iter().filter(|(_, node)| !node.gone && (ours(node) || recorded(node))) {
        let domain = domains.entry(&node.domain).or_default();
        let (size, is_out) = (usize::from(ours(node)), usize::from(out(name, node)));
        (total, *domain) = ((total.0 + size, total.1 + is_out), (domain.0 + size, domain.1 + is_out));
    }
    let budget = policy.max_unavailable.of(total.0);
    if total.1 > budget {
        found.push(format!("{} nodes would be unavailable, {budget} may be", total.1));
    }
    for (domain, (size, out)) in domains {
        let here = started.iter().any(|name| seen.nodes[*name].domain == domain);
        let budget = policy.max_unavailable_per_domain.map(|budget| budget.of(size));
        if let Some(budget) = budget.filter(|budget| here && out > *budget) {
            found.push(format!("{out} nodes of domain {domain} would be unavailable, {budget} may be"));
        }
    }
}

/// With one domain at a time none is begun beside the one that is under way.
fn domains(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    started: &BTreeSet<&str>,
    found: &mut Vec<String>,
) {
    if policy.one_domain_at_a_time {
        let active: BTreeSet<&str> = seen
            .nodes
            .values()
            .filter(|node| {
                ours(node)
                    && recorded(node)
                    && !begins_anew(node)
                    && !is_overdue(policy, node, now)
                    && !stays_away(node)
            })
            .map(|node| node.domain.as_str())
            .collect();
        let elsewhere = |name: &&&str| !active.contains(seen.nodes[**name].domain.as_str());
        if let Some(name) = started.iter().find(|name| !active.is_empty() && elsewhere(name)) {
            let active: Vec<&str> = active.into_iter().collect();
            let active = active.join(" and ");
            found.push(format!("{name} was started while domain {active} is not finished"));
        }
        let mut begun: Vec<&str> = started.iter().map(|name| seen.nodes[*name].domain.as_str()).collect();
        begun.sort_unstable();
        begun.dedup();
        if begun.len() > 1 {
            found.push(format!("domains {} were begun at once", begun.join(" and ")));
        }
    }
}

/// Turns to go back are held by the budget too, but only turns take of it, and none of nodes that are lost.
fn return_trips(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    going_back: &BTreeSet<&str>,
    found: &mut Vec<String>,
) {
    let in_turn = |(name, node): &(&String, &NodeSeen)| {
        let away = is_overdue(policy, node, now) || stays_away_after_reset(policy, node, now);
        going_back.contains(name.as_str()) || recorded(node) && !node.gone && !away
    };
    let turns = || seen.nodes.iter().filter(in_turn).map(|(_, node)| node);
    let budget = policy.max_unavailable.of(seen.nodes.values().filter(|node| ours(node)).count());
    if turns().count() > budget {
        found.push(format!("{} nodes would be in their turn, {budget} may be", turns().count()));
    }
    let Some(limit) = policy.max_unavailable_per_domain else { return };
    for domain in going_back.iter().map(|name| &seen.nodes[*name].domain).collect::<BTreeSet<_>>() {
        let size = seen.nodes.values().filter(|node| ours(node) && node.domain == *domain).count();
        let (out, budget) = (turns().filter(|node| node.domain == *domain).count(), limit.of(size));
        if out > budget {
            found.push(format!("{out} nodes of domain {domain} would be in their turn, {budget} may be"));
        }
    }
}

fn controllers(seen: &Snapshot, started: &BTreeSet<&str>, found: &mut Vec<String>) {
    let controller = |name: &&&str| seen.nodes[**name].control_plane;
    if !started.iter().any(|name| controller(&name)) {
        return;
    }
    let out = |name: &str| started.contains(name) || seen.nodes.get(name).is_some_and(down);
    let ours_out = seen
        .nodes
        .iter()
        .filter(|(_, node)| !node.gone && (ours(node) || recorded(node)))
        .filter(|(name, node)| node.control_plane && out(name));
    if ours_out.count() + seen.other_controllers_down.len() > 1 {
        found.push("two control-plane nodes would be unavailable".into());
    }
    let members = seen.etcd.len();
    if members > 2 && started.iter().any(|name| seen.etcd.contains_key(*name)) {
        let ready =
            seen.etcd.iter().filter(|(name, ready)| **ready && !started.contains(name.as_str())).count();
        if ready * 2 <= members {
            found.push(format!("etcd would have {ready} of {members} members"));
        }
    }
}

/// No node is started past a step that was not seen to be over.
fn steps(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    started: &BTreeSet<&str>,
    found: &mut Vec<String>,
) {
    let Some(digest) = digest(policy) else { return };
    let known = policy.progress.as_ref().filter(|progress| progress.digest == digest);
    let passed = known.map_or(0, |progress| usize::try_from(progress.steps_passed).unwrap_or(0));
    let (image, config) = digest.split_once('+').unwrap_or((&digest, ""));
    let plus = if config.is_empty() { "" } else { "+" };
    let short = format!("{:.12}{plus}{config:.8}", image.trim_start_matches("sha256:"));
    let gate = policy.steps.iter().enumerate().skip(passed).find(|(at, step)| {
        let since = known.filter(|_| *at == passed).and_then(|progress| progress.step_done_at);
        let soaked = since.is_some_and(|since| since.0 + SignedDuration::from_secs(step.soak_seconds) <= now);
        let number = i32::try_from(at + 1).unwrap_or(i32::MAX);
        let kept = known.is_some_and(|progress| progress.approvals.iter().any(|one| one.step == number));
        let fresh = policy.approved.as_ref().is_some_and(|word| word.step == format!("{short}-{number}"));
        step.soak_seconds > 0 && !soaked || step.approval && !kept && !fresh
    });
    let Some((at, step)) = gate else { return };
    let node = |name: &&&str| &seen.nodes[**name];
    if started.iter().any(|name| node(&name).step.is_some_and(|own| own > at)) {
        found.push(format!("a node of a later step was started in step {}", at + 1));
    }
    let Some(Ok(wanted)) = step.nodes.as_ref().map(CountOrPercent::try_from) else { return };
    let size = seen.nodes.values().filter(|node| ours(node)).count();
    let begun = |(name, node): &(&String, &NodeSeen)| {
        // One of a step that is passed came late: it starts whatever the number.
        let starts = started.contains(name.as_str()) && node.step.is_none();
        ours(node) && (runs(policy, node) || recorded(node) || starts)
    };
    let count = seen.nodes.iter().filter(begun).count();
    let free = started.iter().any(|name| node(&name).step.is_none());
    if free && count > wanted.of(size) {
        found.push(format!("{count} nodes were begun in step {}, {} may be", at + 1, wanted.of(size)));
    }
}
