//! An order for another cloud-config alone, on a node that runs the image already and may not reboot for it: the same steps
//! as for an image, but what is tried is applied to the system that runs.

use evenkeel_crds::node_plan::{PlanError, RollbackCause, Target};

use super::{
    Action,
    facts::{EntryFact, Facts, Orders, RunningSlot},
    resume::{REARMS_MAX, go_back},
};
use crate::{
    journal::{Attempt, Journal, Step},
    live_config::Stand,
    reuse,
};

/// What is done for such an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveAction {
    /// Ask the host to apply the order's document, on trial.
    Apply,
    /// Keep what is on trial.
    Keep,
    /// Ask the host to go back to what was before the trial.
    Withdraw,
    /// Go back from what was kept.
    GoBack,
}

/// Whether the order asks for nothing but another cloud-config of the image that runs and is kept, without a reboot.
pub(super) fn is_asked(orders: &Orders, facts: &Facts) -> bool {
    let Some(running) = &facts.running else { return false };
    let image = |release: &str| release.split('+').next().map(str::to_owned);
    let release = orders.order.release();
    orders.live
        && facts.release() != Some(release.as_str())
        && image(&running.digest) == image(&release)
        && reuse::kept(&facts.slots).is_some_and(|kept| kept.name == running.name)
}

/// Makes a new attempt one of that kind.
pub(super) fn begin(attempt: &mut Attempt, running: &RunningSlot, facts: &Facts) {
    attempt.slot.clone_from(&running.name);
    attempt.live = Some(facts.now.as_second());
    attempt.step = Step::Staged;
    if !facts.live.supported {
        attempt.step = Step::Failed;
        attempt.error = Some(PlanError {
            reason: "CannotApplyLive".into(),
            message: "the image that runs has no unit that applies a cloud-config without a reboot: build it with an `init` \
                      of this version, or set reboot.onCloudConfigChange to true"
                .into(),
            retryable: false,
        });
    }
}

/// The attempt at the step where it really stands.
pub(super) fn catch_up(
    attempt: &mut Attempt,
    running: &RunningSlot,
    facts: &Facts,
    journal: &mut Journal,
) -> Step {
    let in_force = facts.release() == Some(attempt.digest.as_str());
    let kept = facts.live.keeps(running, &attempt.digest);
    let id = order_id(attempt);
    let stand = facts.live.stand(&id, &running.boot_id).cloned();
    let asked = facts.live.order(&id, &running.boot_id).is_some();
    match (attempt.step.clone(), stand) {
        (Step::Activating { .. } | Step::Trial, _) if kept && in_force => Step::Committed,
        (Step::Activating { .. } | Step::Trial, _) if running.name != attempt.slot => {
            let message = format!("slot {} runs now, which somebody chose", running.name);
            go_back(&attempt.digest, RollbackCause::User, message, facts, journal)
        }
        (Step::Activating { .. } | Step::Trial, Some(Stand::Applied { .. })) if in_force => Step::Trial,
        (Step::Activating { .. } | Step::Trial, Some(Stand::GivenUp { cause, message })) => {
            go_back(&attempt.digest, cause, message, facts, journal)
        }
        (Step::Trial, None) if !asked => rebooted(attempt, facts, journal),
        (Step::Activating { boot_id_before }, None) if boot_id_before != running.boot_id && !asked => {
            rebooted(attempt, facts, journal)
        }
        (Step::Reverting { cause, message, .. }, Some(Stand::Withdrawn | Stand::GivenUp { .. }))
            if !in_force =>
        {
            go_back(&attempt.digest, cause, message, facts, journal)
        }
        // A reboot took it away meanwhile.
        (Step::Reverting { cause, message, .. }, None) if !in_force && !asked => {
            go_back(&attempt.digest, cause, message, facts, journal)
        }
        (Step::Committed, _) if !in_force => left_behind(attempt, running, facts),
        (step, _) => step,
    }
}

/// A boot took away what was on trial: it is tried again, unless it is what takes the machine down.
fn rebooted(attempt: &mut Attempt, facts: &Facts, journal: &mut Journal) -> Step {
    if let Some(Stand::GivenUp { cause, message } | Stand::Leaving { cause, message }) =
        facts.live.last_stand(&order_id(attempt))
    {
        return go_back(&attempt.digest, *cause, message.clone(), facts, journal);
    }
    if attempt.rearms < REARMS_MAX {
        attempt.rearms += 1;
        return Step::Staged;
    }
    let message = format!(
        "the machine rebooted {} times while the cloud-config was on trial: look at its console for a kernel panic",
        REARMS_MAX + 1
    );
    go_back(&attempt.digest, RollbackCause::Bootloader, message, facts, journal)
}

fn left_behind(attempt: &Attempt, running: &RunningSlot, facts: &Facts) -> Step {
    if running.name != attempt.slot {
        let message = format!("slot {} runs now, with what came with it", running.name);
        return Step::rolled_back(RollbackCause::User, message, facts.now);
    }
    let message = "no agent came up in several boots with the cloud-config that was kept: the one before is applied again, and \
                   the image object has to say something else";
    Step::rolled_back(RollbackCause::Bootloader, message, facts.now)
}

/// What was applied on trial in this boot, while the journal knows nothing of it.
pub(super) fn adopt(orders: &Orders, running: &RunningSlot, facts: &Facts) -> Option<i64> {
    let id = &facts.live.order.as_ref()?.id;
    let since = id.strip_prefix(&orders.order.plan_id)?.strip_prefix('.')?.parse().ok()?;
    let tried = facts.live.is_on_trial(running) && facts.release() == Some(orders.order.release().as_str());
    tried.then_some(since)
}

/// Identity of an attempt's order to the host.
#[must_use]
pub fn order_id(attempt: &Attempt) -> String {
    format!("{}.{}", attempt.plan_id, attempt.live.unwrap_or_default())
}

/// What ends the attempt of an order that is gone; none where the new order can begin.
pub(super) fn end_former(former: &mut Attempt, orders: &Orders, facts: &Facts) -> Option<Action> {
    match former.step {
        Step::Trial if former.digest == orders.order.release() => None,
        Step::Activating { .. } if !is_ordered(former, facts) => None,
        // Nobody is there any more who could keep it.
        Step::Activating { .. } | Step::Trial => {
            let message = "another order came".to_owned();
            former.step = Step::Reverting { cause: RollbackCause::User, message, to: None };
            Some(take_back(former, facts))
        }
        Step::Reverting { .. } => Some(take_back(former, facts)),
        _ => None,
    }
}

/// The next action of an attempt of that kind.
pub(super) fn advance(attempt: &mut Attempt, orders: &Orders, facts: &Facts) -> Action {
    if orders.order.target == Target::Reverted {
        return revert(attempt, orders, facts);
    }
    match attempt.step.clone() {
        Step::Staged if orders.order.target >= Target::Booted && approved(orders, facts) => {
            let Some(running) = &facts.running else { return Action::Wait };
            attempt.error = None;
            attempt.step = Step::Activating { boot_id_before: running.boot_id.clone() };
            Action::Live(LiveAction::Apply)
        }
        // A boot took it away after it was to be kept, and there is no time to try it again.
        Step::Staged if orders.order.target == Target::Committed => {
            let message = "a reboot took the cloud-config away before it was kept";
            attempt.step = Step::rolled_back(RollbackCause::Deadline, message, facts.now);
            Action::Wait
        }
        // Nobody approves of it any more, and the host was not asked yet.
        Step::Activating { .. } if !is_ordered(attempt, facts) && !approved(orders, facts) => {
            attempt.step = Step::Staged;
            Action::Wait
        }
        Step::Activating { .. } => Action::Live(LiveAction::Apply),
        Step::Trial if orders.order.target == Target::Committed && facts.host_checks_passed => {
            Action::Live(LiveAction::Keep)
        }
        Step::Reverting { .. } => take_back(attempt, facts),
        _ => Action::Wait,
    }
}

fn is_ordered(attempt: &Attempt, facts: &Facts) -> bool {
    let boot_id = facts.running.as_ref().map(|running| running.boot_id.as_str()).unwrap_or_default();
    facts.live.order(&order_id(attempt), boot_id).is_some()
}

/// Whether the operator's approval still holds, and was given for this: a node that was not taken out of service does not
/// reboot, and one that was is not kept waiting for a reboot that does not come.
fn approved(orders: &Orders, facts: &Facts) -> bool {
    orders.live_turn && orders.not_after.is_some_and(|not_after| facts.now < not_after)
}

fn revert(attempt: &mut Attempt, orders: &Orders, facts: &Facts) -> Action {
    let (cause, message) = orders.reason_to_revert();
    match attempt.step {
        Step::RolledBack { .. } => Action::Wait,
        Step::Activating { .. } | Step::Trial | Step::Committed
            if attempt.step == Step::Committed || is_ordered(attempt, facts) =>
        {
            attempt.step = Step::Reverting { cause, message, to: None };
            take_back(attempt, facts)
        }
        Step::Reverting { .. } => take_back(attempt, facts),
        _ => {
            attempt.step = Step::rolled_back(cause, message, facts.now);
            Action::Wait
        }
    }
}

/// The way back: from what was kept, or from a trial.
fn take_back(attempt: &Attempt, facts: &Facts) -> Action {
    let kept = |running: &RunningSlot| facts.live.keeps(running, &attempt.digest);
    if facts.running.as_ref().is_some_and(kept) {
        Action::Live(LiveAction::GoBack)
    } else {
        Action::Live(LiveAction::Withdraw)
    }
}

/// An attempt that cannot go on: what it was for does not run any more, or is on its way out.
pub(super) fn is_void(attempt: &Attempt, running: &RunningSlot, facts: &Facts) -> bool {
    let kept = facts.slot(&running.name).map(|slot| slot.entry) == Some(EntryFact::Permanent);
    attempt.step == Step::Staged && (running.name != attempt.slot || !kept)
}

#[cfg(test)]
mod tests;
