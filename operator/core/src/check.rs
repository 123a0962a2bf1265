//! An independent look at a decision: what must never be decided, whatever the planner thinks.
//!
//! Shares no code with the planner on purpose.

pub mod clock;
mod fleet;

use evenkeel_crds::{
    drain::DrainTimeout,
    health_gate::GateTime,
    hook::{HookTime, OnHookFailure},
    node_plan::{Disruption, Phase, ResetOrder, RollbackCause, Target},
};
use jiff::{SignedDuration, Timestamp};

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
    fleet::starts(policy, seen, now, actions, &mut found);
    let stopped = fleet::is_stopped(policy, seen, now);
    for (name, action) in actions {
        let node = &seen.nodes[name];
        for (broken, rule) in single(policy, node, action, stopped, now) {
            if broken {
                found.push(format!("{name}: {rule}"));
            }
        }
    }
    found
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
fn single(
    policy: &Policy,
    node: &NodeSeen,
    action: &Action,
    stopped: bool,
    now: Timestamp,
) -> Vec<(bool, &'static str)> {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    let status = node.plan.as_ref().map(|plan| &plan.status);
    let target = node.plan.as_ref().and_then(|plan| plan.spec.target);
    let same_order =
        |plan_id: &String| node.plan.as_ref().is_some_and(|plan| plan.spec.plan_id.as_ref() == Some(plan_id));
    let going_back = record.is_some_and(|record| record.going_back);
    let live = record.is_some_and(|record| record.live);
    let out_of_service = live || is_out_of_service(policy, node);
    let on_trial = status.is_some_and(|status| matches!(status.phase, Phase::Trial | Phase::Committed));
    let still_trial = status.is_some_and(|status| status.phase == Phase::Trial);
    let rebooted = record.is_some_and(|record| {
        node.boot_id != record.boot_id_before
            && status.and_then(|status| status.booted.as_ref()).is_some_and(|b| b.boot_id == node.boot_id)
    });
    match action {
        Action::OrderStage { plan_id, .. } => vec![
            (same_order(plan_id) && target > Some(Target::Staged), "moved an order backwards"),
            (stopped, "staged a digest that failed"),
            (policy.dry_run, "staged in a dry run"),
            (too_soon(policy, node, plan_id, now), "tried again before its pause was over"),
            (record.is_some(), "restaged a node in its turn"),
            (node.claimed_by_other.is_some() || !node.selected, "staged a node that is not ours"),
        ],
        Action::OrderRecovery(Some(_)) => vec![
            (record.is_some(), "wrote the recovery slot of a node in its turn"),
            (
                status.is_none_or(|status| !matches!(status.phase, Phase::Committed | Phase::Idle)),
                "wrote the recovery slot before the image was kept",
            ),
            (stopped, "wrote a recovery slot although the rollout was stopped"),
            (policy.dry_run, "wrote a recovery slot in a dry run"),
        ],
        Action::BeginDisruption(new) => begin(policy, node, new),
        Action::Cordon
        | Action::Evict
        | Action::MarkDraining(_)
        | Action::MarkDrained(_)
        | Action::RunHook(_) => {
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
                record.is_some_and(|record| record.reset.is_some()),
                "approved a reboot in a turn to begin anew",
            ),
            (!out_of_service, "rebooted before it was cordoned and drained"),
            (going_back, "approved a reboot into the image that is to be left"),
            (!live && gate_open(policy, node, GateTime::During), "rebooted before a gate was met"),
            (!live && hook_open(policy, node, HookTime::AfterDrain), "rebooted before a hook was done"),
        ],
        Action::Commit => vec![
            (!on_trial || !live && !rebooted, "committed without a new boot"),
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
        Action::OrderReset(order) => order_reset(policy, node, order),
        Action::ForgetReset { failed } => forget_reset(policy, node, failed.is_some(), now),
        Action::Uncordon => vec![
            (node.cordoned_by.as_deref() != Some(&policy.name), "lifted a cordon that is not ours"),
            (record.is_some_and(|record| record.found_cordoned), "lifted a cordon that was there before"),
        ],
        Action::EndDisruption(_) | Action::EndReset => end(policy, node),
        Action::ReleasePlan => vec![(record.is_some() && !node.gone, "released a node in its turn")],
        Action::Revert { order, .. } => vec![
            (target == Some(Target::Committed) && !going_back, "reverted a committed node"),
            (going_back && !out_of_service, "reverted before it was cordoned and drained"),
            (going_back && order.cause != RollbackCause::Rollout, "blamed a node for the image"),
        ],
        Action::EnsurePlan | Action::MarkHealthy(_) | Action::Avoid(_) | Action::OrderRecovery(None) => {
            vec![]
        }
    }
}

/// Whether the node is cordoned and drained, as far as that is wanted.
fn is_out_of_service(policy: &Policy, node: &NodeSeen) -> bool {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    let drained = node.drain == DrainSeen::Done || record.is_some_and(|record| record.drained_at.is_some());
    (!policy.drain.enabled || drained) && (!policy.cordon || node.unschedulable)
}

/// The rules for the end of a turn.
fn end(policy: &Policy, node: &NodeSeen) -> Vec<(bool, &'static str)> {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    vec![
        (
            node.unschedulable
                && node.cordoned_by.as_deref() == Some(&policy.name)
                && !record.is_some_and(|record| record.found_cordoned),
            "ended a turn and left its cordon",
        ),
        (
            reset_order(node).is_some() && node.reset == record.and_then(|record| record.reset),
            "ended a turn and left the wish that would begin another",
        ),
    ]
}

/// The rules for an order to begin anew.
fn order_reset(policy: &Policy, node: &NodeSeen, order: &ResetOrder) -> Vec<(bool, &'static str)> {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    let begun = record.and_then(|record| record.reset);
    let wanted = Some(order.wipe);
    vec![
        (begun != wanted || node.reset != wanted, "ordered a loss that nobody wanted"),
        (reset_order(node).is_some(), "ordered a loss twice"),
        (!is_out_of_service(policy, node), "began anew before it was cordoned and drained"),
        (gate_open(policy, node, GateTime::During), "began anew before a gate was met"),
        (hook_open(policy, node, HookTime::AfterDrain), "began anew before a hook was done"),
    ]
}

/// The rules for giving up a wish to begin anew, or for taking it as fulfilled.
fn forget_reset(policy: &Policy, node: &NodeSeen, failed: bool, now: Timestamp) -> Vec<(bool, &'static str)> {
    let record = node.plan.as_ref().and_then(|plan| plan.spec.disruption.as_ref());
    let is_ordered = reset_order(node).is_some();
    let stands_in_the_way = !is_out_of_service(policy, node)
        || gate_open(policy, node, GateTime::During)
        || [HookTime::BeforeCordon, HookTime::AfterDrain].iter().any(|when| hook_open(policy, node, *when));
    vec![
        (record.is_none_or(|record| record.reset.is_none()), "forgot a wish without its turn"),
        (
            is_ordered && !reset_is_over(policy, node, now),
            "forgot a wish before it was known what came of it",
        ),
        (!(is_ordered || failed && stands_in_the_way), "gave up a wish although nothing stood in its way"),
    ]
}

/// The order of the turn to begin anew that the node is in.
fn reset_order(node: &NodeSeen) -> Option<&ResetOrder> {
    let spec = &node.plan.as_ref()?.spec;
    spec.disruption.as_ref().filter(|record| record.reset.is_some()).and(spec.reset.as_ref())
}

/// Whether the machine said what came of its order, or had the time for it, and to come back.
fn reset_is_over(policy: &Policy, node: &NodeSeen, now: Timestamp) -> bool {
    let Some((order, plan)) = reset_order(node).zip(node.plan.as_ref()) else { return false };
    let before = plan.spec.disruption.as_ref().map(|record| &record.boot_id_before);
    let back = node.ready && before != Some(&node.boot_id);
    let said = plan.status.last_reset.as_ref().filter(|said| said.id == order.id);
    said.is_some_and(|said| said.failed.is_some() || back) || fleet::stays_away_after_reset(policy, node, now)
}

/// The rules for the begin of a turn.
fn begin(policy: &Policy, node: &NodeSeen, new: &Disruption) -> Vec<(bool, &'static str)> {
    let status = node.plan.as_ref().map(|plan| &plan.status);
    let spec = node.plan.as_ref().map(|plan| &plan.spec);
    let record = spec.and_then(|spec| spec.disruption.as_ref());
    let target = spec.and_then(|spec| spec.target);
    let for_image = new.reset.is_none();
    vec![
        (record.is_some(), "began a turn twice"),
        (new.reset != node.reset && !for_image, "began a turn for a loss that nobody wanted"),
        (
            for_image && target != Some(if new.going_back { Target::Committed } else { Target::Staged }),
            "began a turn with an order that was used up",
        ),
        (new.found_cordoned != node.unschedulable, "recorded another cordon than it found"),
        (new.boot_id_before != node.boot_id, "recorded another boot than it found"),
        (
            for_image && new.live != status.is_some_and(|status| status.live),
            "recorded wrongly whether the node reboots",
        ),
        (
            for_image && !new.going_back && status.is_none_or(|status| status.phase != Phase::Staged),
            "began before the node was staged",
        ),
        (
            !new.going_back
                && !new.live
                && policy.drain.enabled
                && policy.drain.dry_run
                && !matches!(node.checks.departure, Departure::Free { .. }),
            "began without knowing whether the node may leave service",
        ),
        (
            !new.going_back && !new.live && matches!(node.checks.departure, Departure::Held { .. }),
            "began with what holds the node back",
        ),
    ]
}

/// Whether another attempt comes earlier than the pause after the last one, counted from the order at the earliest.
fn too_soon(policy: &Policy, node: &NodeSeen, plan_id: &str, now: Timestamp) -> bool {
    let Some(plan) = &node.plan else { return false };
    let ended = plan.status.plan_id.is_some()
        && plan.status.plan_id == plan.spec.plan_id
        && matches!(plan.status.phase, Phase::RolledBack | Phase::Failed);
    let back = plan.status.rolled_back.as_ref().map(|back| back.cause);
    let (Some(before), Some(ordered)) = (&plan.spec.plan_id, plan.spec.ordered_at) else { return false };
    // Another image's attempt is none of this one's.
    let same = before.rsplit_once('-').map(|parts| parts.0) == plan_id.rsplit_once('-').map(|parts| parts.0);
    let pause = SignedDuration::from_secs(policy.failure.backoff_seconds.min(86_400));
    ended && same && back != Some(RollbackCause::Rollout) && now >= ordered.0 && now < ordered.0 + pause
}
