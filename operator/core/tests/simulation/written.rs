//! What the operator's writes do to a Node and its plan, as `operator/src/reconcile/apply.rs` makes them.

use evenkeel_crds::{condition::Time, node_plan::Target};
use evenkeel_operator_core::{Action, DrainSeen, NodeSeen, PlanSeen, Policy};

/// One write. `by_others` says whether somebody else has cordoned the node too.
pub fn write(policy: &Policy, node: &mut NodeSeen, action: Action, by_others: bool) {
    match action {
        Action::ReleasePlan => node.plan = None,
        Action::Cordon => {
            node.unschedulable = true;
            node.cordoned_by = Some(policy.name.clone());
        }
        Action::ForgetReset { .. } => node.reset = None,
        Action::Avoid(avoided) => node.checks.avoided = avoided,
        Action::Uncordon => {
            node.checks.avoided = false;
            node.unschedulable = by_others;
            node.cordoned_by = None;
        }
        order => write_plan(policy, node, order),
    }
}

fn write_plan(policy: &Policy, node: &mut NodeSeen, action: Action) {
    let spec = &mut node.plan.get_or_insert_with(PlanSeen::default).spec;
    match action {
        Action::OrderStage { plan_id, image, at } => {
            spec.ordered_at = Some(Time(at));
            spec.plan_id = Some(plan_id);
            spec.image = Some(image);
            spec.cloud_config.clone_from(&policy.cloud_config);
            spec.live = policy.applies_live();
            spec.recovery = None;
            spec.target = Some(Target::Staged);
            spec.pull = policy.pull.clone();
            spec.verification.clone_from(&policy.verification);
            spec.revert = None;
            spec.not_after = None;
            spec.commit_deadline_seconds = Some(policy.reboot.commit_deadline_seconds);
        }
        Action::BeginDisruption(record) => (spec.disruption, spec.reset) = (Some(record), None),
        Action::ApproveReboot { deadline } => {
            spec.target = Some(Target::Booted);
            spec.not_after = Some(Time(deadline));
            spec.disruption.as_mut().unwrap().deadline = Some(Time(deadline));
        }
        Action::MarkDraining(at) => spec.disruption.as_mut().unwrap().draining_since = Some(Time(at)),
        Action::MarkDrained(at) => spec.disruption.as_mut().unwrap().drained_at = Some(Time(at)),
        Action::MarkHealthy(since) => spec.disruption.as_mut().unwrap().healthy_since = since.map(Time),
        Action::Commit => spec.target = Some(Target::Committed),
        Action::OrderRecovery(order) => {
            (spec.pull, spec.verification) = (policy.pull.clone(), policy.verification.clone());
            spec.recovery = order;
        }
        Action::Revert { order, at } => {
            spec.target = Some(Target::Reverted);
            spec.revert = Some(order);
            let record = spec.disruption.as_mut().unwrap();
            record.deadline = record.deadline.max(Some(Time(at)));
        }
        Action::OrderReset(order) => {
            let record = spec.disruption.as_mut().unwrap();
            record.deadline = Some(order.not_after);
            let since = record.since;
            spec.not_after = spec.not_after.map(|at| at.min(since));
            spec.reset = Some(order);
        }
        Action::EndReset => {
            (spec.disruption, spec.reset) = (None, None);
            node.drain = DrainSeen::NotLookedAt;
        }
        Action::EndDisruption(turn) => {
            spec.disruption = None;
            spec.last_turn = Some(turn);
            node.drain = DrainSeen::NotLookedAt;
        }
        _ => {}
    }
}
