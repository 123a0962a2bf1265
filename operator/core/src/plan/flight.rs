//! A node whose turn began: it is finished, or brought back, before anything else.

use evenkeel_crds::{
    condition::Time,
    hook::HookTime,
    node_plan::{LastTurn, Phase, Target, TurnOutcome},
};

use super::{Action, Decision, failure, leave, reset, return_trip, trial, turn::Turn};
use crate::{
    hooks::{self, Step},
    report::NodeState,
};

/// The next step of a node with a record of disruption.
pub fn advance(turn: &Turn, decision: &mut Decision) {
    let Turn { policy, node, plan, record, now, .. } = *turn;
    if node.gone {
        return turn.act(NodeState::Released, Action::ReleasePlan, decision);
    }
    if let Some(wipe) = record.reset {
        return reset::advance(turn, wipe, decision);
    }
    let told = plan.spec.target > Some(Target::Staged)
        && !(record.going_back && plan.spec.target == Some(Target::Committed));
    if told {
        let at = failure::lost_at(policy, record, plan.spec.target);
        if (policy.deleting || node.plan_deleted) && now >= at {
            return give_back(turn, decision);
        }
        if now < at {
            decision.wake(at);
        }
    }
    if matches!(node.phase(), Phase::RolledBack | Phase::Failed) {
        return finish(turn, decision);
    }
    if let Some(why) = failure::lost(policy, node, now) {
        turn.say(NodeState::Lost(why), decision);
    }
    if record.going_back {
        return return_trip::advance(turn, decision);
    }
    match plan.spec.target {
        None | Some(Target::Staged) if is_dropped(turn) => finish(turn, decision),
        None | Some(Target::Staged) => leave::leave_service(turn, decision),
        Some(Target::Booted) => trial::prove(turn, decision),
        Some(Target::Committed) if node.phase() == Phase::Committed => finish(turn, decision),
        Some(Target::Committed) => turn.say_unless_lost(NodeState::Committing, decision),
        Some(Target::Reverted) => turn.say_reverting(decision),
    }
}

/// Whether a turn ends before its reboot, because the node shall not have this image any more.
fn is_dropped(turn: &Turn) -> bool {
    turn.policy.deleting
        || turn.node.plan_deleted
        || turn.fleet.verdict.stopped.is_some()
        || !turn.node.selected
        || turn.node.claimed_by_other.is_some()
        // Whether it needs a reboot is not as it was: another turn is begun for that.
        || turn.record.live != turn.plan.status.live
        || !turn.policy.is_ordered_by(&turn.plan.spec)
}

fn our_cordon(turn: &Turn) -> bool {
    let node = turn.node;
    let ours = node.cordoned_by.as_deref() == Some(turn.policy.name.as_str());
    node.unschedulable && !turn.record.found_cordoned && ours
}

/// Gives the node back: our cordon is lifted, and only once that was seen the record goes.
pub fn finish(turn: &Turn, decision: &mut Decision) {
    let Turn { policy, node, .. } = *turn;
    if our_cordon(turn) && failure::stays_away(node) {
        let why = "the node is not Ready after its reboot".to_owned();
        return turn.say_unless_lost(NodeState::Halted(why), decision);
    }
    let when = match node.phase() {
        Phase::Committed => Some(HookTime::AfterCommit),
        Phase::RolledBack | Phase::Failed => Some(HookTime::AfterRevert),
        _ => None,
    };
    // Whoever deletes the image object waits for no hook.
    match when.filter(|_| !policy.deleting).map(|when| hooks::step(policy, node, when)) {
        Some(Step::Run(hook)) => {
            turn.act(NodeState::Halted(format!("hook {hook}")), Action::RunHook(hook), decision);
        }
        Some(Step::Wait { why, .. }) => turn.say(NodeState::Halted(why), decision),
        // There is nothing that could be reverted: the definition of the API refuses such hooks.
        None | Some(Step::Done | Step::Revert(_)) => give_back(turn, decision),
    }
}

/// Lifts our cordon, and only once that was seen ends the turn.
pub fn give_back(turn: &Turn, decision: &mut Decision) {
    let action = match turn.record.reset {
        _ if our_cordon(turn) => Action::Uncordon,
        Some(_) => Action::EndReset,
        None => Action::EndDisruption(ended(turn)),
    };
    turn.act(NodeState::Finishing, action, decision);
}

fn ended(turn: &Turn) -> LastTurn {
    let spec = &turn.plan.spec;
    let outcome = match turn.node.phase() {
        _ if turn.record.going_back => TurnOutcome::Dropped,
        Phase::Committed => TurnOutcome::Updated,
        Phase::RolledBack | Phase::Failed => TurnOutcome::Failed,
        _ if spec.target > Some(Target::Staged) => TurnOutcome::Failed,
        _ => TurnOutcome::Dropped,
    };
    let plan_id = spec.plan_id.clone().unwrap_or_default();
    let since = turn.record.since;
    // What needs no reboot says nothing of how long one takes.
    let reboot_took_seconds = if outcome == TurnOutcome::Updated && !turn.record.live {
        Some(turn.now.duration_since(since.0).as_secs().max(0))
    } else {
        spec.last_turn.as_ref().and_then(|before| before.reboot_took_seconds)
    };
    LastTurn { plan_id, since, until: Time(turn.now), outcome, reboot_took_seconds }
}
