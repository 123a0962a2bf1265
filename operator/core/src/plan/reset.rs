//! A machine that begins anew, as somebody wants it: it leaves service as for an image, reboots once, and runs what it ran.

use evenkeel_crds::{
    condition::Time,
    node_plan::{Disruption, ResetOrder, ResetStatus, Wipe},
};
use jiff::SignedDuration;

use super::{Action, Decision, failure::reset_until, flight::give_back, leave, turn::Turn};
use crate::report::NodeState;

/// The next step of a turn for that.
pub fn advance(turn: &Turn, wipe: Wipe, decision: &mut Decision) {
    let Turn { policy, node, plan, now, .. } = *turn;
    let Some(order) = plan.spec.reset.as_ref().filter(|order| order.id == id(turn.record)) else {
        if is_dropped(turn, wipe) {
            give_back(turn, decision);
        } else {
            leave_service(turn, wipe, decision);
        }
        return;
    };
    let said = plan.status.last_reset.as_ref().filter(|said| said.id == order.id);
    match said {
        Some(ResetStatus { failed: Some(error), .. }) => {
            return conclude(turn, Some(error.message.clone()), decision);
        }
        Some(_) if node.ready && node.boot_id != turn.record.boot_id_before => {
            return conclude(turn, None, decision);
        }
        _ => {}
    }
    let until = reset_until(policy, order);
    if now < until {
        decision.wake(until);
        return turn.say(NodeState::Rebooting, decision);
    }
    let what =
        if said.is_some() { "is not Ready after it began anew" } else { "did not say that it began anew" };
    let why = format!("it {what}, and should have by {until}: look at the machine");
    if node.ready || policy.deleting || node.plan_deleted {
        conclude(turn, Some(why), decision);
    } else {
        turn.say(NodeState::Overdue(why), decision);
    }
}

fn leave_service(turn: &Turn, wipe: Wipe, decision: &mut Decision) {
    if leave::is_ready_to_reboot(turn, decision) {
        let not_after = Time(turn.now + SignedDuration::from_secs(turn.policy.reboot.deadline_seconds));
        let (id, boot_id) = (id(turn.record), turn.node.boot_id.clone());
        let order = ResetOrder { id, wipe, boot_id, not_after };
        turn.act(NodeState::Rebooting, Action::OrderReset(order), decision);
    }
}

/// A turn's own: a machine begins anew once in it.
fn id(record: &Disruption) -> String {
    record.since.0.to_string()
}

/// Whether it ends before the order, because somebody wants something else.
fn is_dropped(turn: &Turn, wipe: Wipe) -> bool {
    turn.policy.deleting || turn.node.plan_deleted || !turn.node.ours() || turn.node.reset != Some(wipe)
}

/// What somebody wanted is taken back first: after the turn it would begin another one.
fn conclude(turn: &Turn, failed: Option<String>, decision: &mut Decision) {
    if turn.node.reset == turn.record.reset {
        turn.act(NodeState::Finishing, Action::ForgetReset { failed }, decision);
    } else {
        give_back(turn, decision);
    }
}
