//! An independent look at a decision: what must never be decided, whatever the planner thinks.
//!
//! Shares no code with the planner on purpose.

use evenkeel_crds::{
    drain::DrainTimeout,
    health_gate::GateTime,
    hook::{HookTime, OnHookFailure},
    node_plan::{Phase, Target},
};
use jiff::Timestamp;

use crate::{
    drain::DrainSeen,
    gates::Departure,
    hooks::JobSeen,
    plan::Action,
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

/// Every rule that `actions` break, in words; empty when all hold.
pub fn violations(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    actions: &[(String, Action)],
) -> Vec<String> {
    let mut found = Vec::new();
    let mut names: Vec<&String> = actions.iter().map(|(name, _)| name).collect();
    names.sort();
    names
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .for_each(|pair| found.push(format!("two actions on {}", pair[0])));
    starts(policy, seen, now, actions, &mut found);
    for (name, action) in actions {
        let node = &seen.nodes[name];
        for (broken, rule) in single(policy, node, action, &spoilt(policy, seen)) {
            if broken {
                found.push(format!("{name}: {rule}"));
            }
        }
    }
    found
}

/// Nodes on which the wanted digest failed.
fn spoilt(policy: &Policy, seen: &Snapshot) -> Vec<String> {
    let Some(digest) = policy.image.as_ref().and_then(|image| image.split('@').nth(1)) else { return vec![] };
    let failed = |node: &&NodeSeen| {
        let Some(plan) = &node.plan else { return false };
        let same = plan.spec.image.as_deref().is_some_and(|image| image.ends_with(digest));
        let ended = matches!(plan.status.phase, Phase::RolledBack | Phase::Failed);
        let runs = plan.status.booted.as_ref().is_some_and(|booted| booted.digest == digest);
        let kept = runs && matches!(plan.status.phase, Phase::Idle | Phase::Committed);
        let manageable = plan.status.host.as_ref().is_none_or(|host| host.manageable);
        node.selected
            && !node.gone
            && !kept
            && manageable
            && node.claimed_by_other.is_none()
            && (plan.status.bad_digests.iter().any(|bad| bad == digest)
                || same && ended && plan.status.plan_id.is_some() && plan.status.plan_id == plan.spec.plan_id)
    };
    let spoken = |name: &str| {
        let node = seen.nodes.get(name).filter(|node| node.selected && !node.gone);
        node.and_then(|node| node.plan.as_ref()).is_some_and(|plan| plan.status.host.is_some())
    };
    let written =
        policy.rejected.iter().filter(|old| old.condemned && old.digest == digest && !spoken(&old.node));
    let told = seen.nodes.iter().filter(|(_, node)| failed(node)).map(|(name, _)| name.clone());
    told.chain(written.map(|old| old.node.clone())).collect()
}

fn down(node: &NodeSeen) -> bool {
    !node.ready || node.unschedulable || recorded(node)
}

fn recorded(node: &NodeSeen) -> bool {
    node.plan.as_ref().is_some_and(|plan| plan.spec.disruption.is_some())
}

fn starts(
    policy: &Policy,
    seen: &Snapshot,
    now: Timestamp,
    actions: &[(String, Action)],
    found: &mut Vec<String>,
) {
    let started: Vec<&String> = actions
        .iter()
        .filter(|(_, action)| matches!(action, Action::BeginDisruption(_)))
        .map(|(name, _)| name)
        .collect();
    if started.is_empty() {
        return;
    }
    let fleet: Vec<_> = seen
        .nodes
        .iter()
        .filter(|(_, node)| !node.gone)
        .filter(|(_, node)| node.selected && node.claimed_by_other.is_none() || recorded(node))
        .collect();
    let out = |name: &String, node: &NodeSeen| down(node) || started.contains(&name);
    let total = fleet.iter().filter(|(name, node)| out(name, node)).count();
    let size = fleet.iter().filter(|(_, node)| node.selected && node.claimed_by_other.is_none()).count();
    let budget = policy.max_unavailable.of(size);
    if total > budget {
        found.push(format!("{total} nodes would be unavailable, {budget} may be"));
    }
    let controllers = fleet.iter().filter(|(name, node)| node.control_plane && out(name, node)).count()
        + seen.other_controllers_down.len();
    if controllers > 1 && started.iter().any(|name| seen.nodes[*name].control_plane) {
        found.push("two control-plane nodes would be unavailable".into());
    }
    if policy.pauses.iter().any(|pause| pause.until.is_none_or(|until| until.0 > now)) {
        found.push("started while paused".into());
    }
    if policy.deleting || !spoilt(policy, seen).is_empty() {
        found.push("started after a failure or a deletion".into());
    }
}

/// Whether a gate of this time was not seen to be met.
fn gate_open(policy: &Policy, node: &NodeSeen, when: GateTime) -> bool {
    policy.gates.iter().filter(|gate| gate.when.contains(&when)).any(|gate| match &gate.node_condition {
        Some(wanted) => {
            node.conditions.get(&wanted.r#type).map(String::as_str)
                != Some(format!("{:?}", wanted.status).as_str())
        }
        None => !node.checks.gates.iter().any(|seen| seen.name == gate.name && seen.when == when && seen.met),
    })
}

/// Whether a hook of this step neither succeeded nor failed without anybody minding.
fn hook_open(policy: &Policy, node: &NodeSeen, when: HookTime) -> bool {
    policy.hooks.iter().filter(|hook| hook.when == when).any(|hook| {
        let job = node.checks.hooks.iter().find(|seen| seen.name == hook.name).map(|seen| &seen.job);
        match job {
            Some(JobSeen::Succeeded) => false,
            Some(JobSeen::Failed { .. }) => hook.on_failure != OnHookFailure::Ignore,
            _ => true,
        }
    })
}

/// The rules for one action on one node, each with whether it is broken.
fn single(policy: &Policy, node: &NodeSeen, action: &Action, spoilt: &[String]) -> Vec<(bool, &'static str)> {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    let status = node.plan.as_ref().map(|plan| &plan.status);
    let target = node.plan.as_ref().and_then(|plan| plan.spec.target);
    let same_order =
        |plan_id: &String| node.plan.as_ref().is_some_and(|plan| plan.spec.plan_id.as_ref() == Some(plan_id));
    let on_trial = status.is_some_and(|status| matches!(status.phase, Phase::Trial | Phase::Committed));
    let still_trial = status.is_some_and(|status| status.phase == Phase::Trial);
    let rebooted = record.is_some_and(|record| {
        node.boot_id != record.boot_id_before
            && status.and_then(|status| status.booted.as_ref()).is_some_and(|b| b.boot_id == node.boot_id)
    });
    match action {
        Action::OrderStage { plan_id, .. } => vec![
            (same_order(plan_id) && target > Some(Target::Staged), "moved an order backwards"),
            (!spoilt.is_empty(), "staged a digest that failed"),
            (record.is_some(), "restaged a node in its turn"),
            (node.claimed_by_other.is_some() || !node.selected, "staged a node that is not ours"),
        ],
        Action::BeginDisruption(new) => vec![
            (record.is_some(), "began a turn twice"),
            (target != Some(Target::Staged), "began a turn with an order that was used up"),
            (new.found_cordoned != node.unschedulable, "recorded another cordon than it found"),
            (new.boot_id_before != node.boot_id, "recorded another boot than it found"),
            (status.is_none_or(|status| status.phase != Phase::Staged), "began before the node was staged"),
            (
                policy.drain.enabled
                    && policy.drain.dry_run
                    && !matches!(node.checks.departure, Departure::Free { .. }),
                "began without knowing whether the node may leave service",
            ),
            (matches!(node.checks.departure, Departure::Held { .. }), "began with what holds the node back"),
        ],
        Action::Cordon | Action::Evict | Action::MarkDrained(_) | Action::RunHook(_) => {
            vec![(record.is_none(), "disrupted without a record")]
        }
        Action::ForceOut => vec![
            (record.is_none(), "disrupted without a record"),
            (policy.drain.on_timeout != DrainTimeout::Force, "deleted pods that nobody wanted deleted"),
        ],
        Action::ApproveReboot { .. } => vec![
            (record.is_none(), "rebooted without a record"),
            (target != Some(Target::Staged), "approved a reboot out of order"),
            (
                policy.drain.enabled
                    && node.drain != DrainSeen::Done
                    && record.is_none_or(|record| record.drained_at.is_none()),
                "rebooted before the drain was done",
            ),
            (gate_open(policy, node, GateTime::During), "rebooted before a gate was met"),
            (hook_open(policy, node, HookTime::AfterDrain), "rebooted before a hook was done"),
            (policy.cordon && !node.unschedulable, "rebooted before the cordon was seen"),
        ],
        Action::Commit => vec![
            (!on_trial || !rebooted, "committed without a new boot"),
            (still_trial && gate_open(policy, node, GateTime::After), "committed before a gate was met"),
            (
                still_trial && hook_open(policy, node, HookTime::AfterReboot),
                "committed before a hook was done",
            ),
            (
                status.is_none_or(|s| {
                    s.phase != Phase::Committed && !s.booted.as_ref().is_some_and(|b| b.host_checks_passed)
                }),
                "committed before the host's own checks passed",
            ),
            (
                !node.ready && status.is_none_or(|s| s.phase != Phase::Committed),
                "committed a node that is not Ready",
            ),
        ],
        Action::Uncordon => vec![
            (node.cordoned_by.as_deref() != Some(&policy.name), "lifted a cordon that is not ours"),
            (record.is_some_and(|record| record.found_cordoned), "lifted a cordon that was there before"),
        ],
        Action::EndDisruption => vec![(
            node.unschedulable
                && node.cordoned_by.as_deref() == Some(&policy.name)
                && !record.is_some_and(|record| record.found_cordoned),
            "ended a turn and left its cordon",
        )],
        Action::ReleasePlan => vec![(record.is_some() && !node.gone, "released a node in its turn")],
        Action::Revert(_) => vec![(target == Some(Target::Committed), "reverted a committed node")],
        Action::EnsurePlan | Action::MarkHealthy(_) | Action::Avoid(_) => vec![],
    }
}
