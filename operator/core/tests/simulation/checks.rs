//! What a cluster answers about nodes: whether they may leave service, their gates and their hooks.

use std::collections::BTreeSet;

use evenkeel_crds::{
    drain::DrainTimeout,
    health_gate::{CelGate, GateTime, HealthGate, OnGateError},
    hook::{Hook, HookTime, JobTemplate, OnHookFailure},
};
use evenkeel_operator_core::{
    NodeSeen, Policy,
    gates::{self, Departure, GateSeen},
    hooks::{HookSeen, JobSeen},
};
use jiff::{SignedDuration, Timestamp};

use crate::dice::Dice;

/// Rules for gates, hooks and drains, as somebody may have set them.
pub fn rules(policy: &mut Policy, dice: &mut Dice) {
    policy.drain.dry_run = !dice.one_in(4);
    policy.drain.prefer_no_schedule = dice.one_in(3);
    policy.drain.on_timeout =
        *dice.pick(&[DrainTimeout::UncordonAndFail, DrainTimeout::Retry, DrainTimeout::Force]);
    policy.reboot.delay_seconds = i64::try_from(dice.roll(3)).unwrap() * 30;
    let times = [GateTime::Before, GateTime::During, GateTime::After];
    let when: Vec<GateTime> = times.into_iter().filter(|_| dice.one_in(4)).collect();
    if !when.is_empty() {
        policy.gates.push(gate(when));
    }
    for (step, when) in [
        HookTime::BeforeCordon,
        HookTime::AfterDrain,
        HookTime::AfterReboot,
        HookTime::AfterCommit,
        HookTime::AfterRevert,
    ]
    .into_iter()
    .enumerate()
    {
        if dice.one_in(6) {
            let on_failure = match when {
                HookTime::AfterCommit | HookTime::AfterRevert => OnHookFailure::Block,
                _ => *dice.pick(&[OnHookFailure::Block, OnHookFailure::Ignore, OnHookFailure::Revert]),
            };
            let template = JobTemplate(serde_json::json!({ "spec": {} }));
            policy.hooks.push(Hook {
                name: format!("hook-{step}"),
                when,
                template,
                timeout_seconds: 60,
                on_failure,
            });
        }
    }
}

fn gate(when: Vec<GateTime>) -> HealthGate {
    HealthGate {
        name: "storage".into(),
        when,
        timeout_seconds: None,
        interval_seconds: 10,
        threshold: 1,
        on_error: OnGateError::Block,
        node_condition: None,
        cel: Some(CelGate {
            api_version: "v1".into(),
            kind: "Storage".into(),
            namespace: None,
            name: None,
            selector: None,
            expression: "true".into(),
        }),
        workload: None,
        prometheus: None,
        annotation: None,
        job: None,
    }
}

/// Whether a node may leave service, as somebody finds out now.
pub fn departure(held: bool, now: Timestamp) -> Departure {
    if held {
        Departure::Held { by: "budget web".into(), again: now + SignedDuration::from_secs(40) }
    } else {
        Departure::Free { at: now }
    }
}

/// Gates come and go, Jobs end. Nobody's fault any more, and a person has deleted the Jobs that failed.
pub fn advance(policy: &Policy, node: &mut NodeSeen, now: Timestamp, dice: &mut Dice, faults: bool) {
    if node.disruption().is_none() {
        node.checks.gates.clear();
        node.checks.hooks.clear();
        return;
    }
    let when = gates::time(node);
    let asked = policy.gates.iter().filter(|gate| when.is_some_and(|when| gate.when.contains(&when)));
    node.checks.gates = asked
        .map(|gate| GateSeen {
            name: gate.name.clone(),
            when: when.expect("gates are asked at a time"),
            met: !faults || !dice.one_in(4),
            since: now,
            why: "it rebalances".into(),
        })
        .collect();
    for hook in &mut node.checks.hooks {
        if matches!(hook.job, JobSeen::Running { .. }) {
            let failed = faults && dice.one_in(12);
            hook.job =
                if failed { JobSeen::Failed { why: "exit code 1".into() } } else { JobSeen::Succeeded };
        }
    }
    if !faults {
        node.checks.hooks.retain(|hook| !matches!(hook.job, JobSeen::Failed { .. }));
    }
}

/// A hook's Job is made. Twice is once: it has a name of its own.
pub fn run(node: &mut NodeSeen, hook: &str, now: Timestamp) {
    let known: BTreeSet<String> = node.checks.hooks.iter().map(|seen| seen.name.clone()).collect();
    if !known.contains(hook) {
        node.checks.hooks.push(HookSeen { name: hook.to_owned(), job: JobSeen::Running { since: now } });
    }
}
