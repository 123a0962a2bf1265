//! The next single action, from the order, the journal and the facts.

use evenkeel_crds::node_plan::{PlanError, Target};

use super::{
    Action,
    facts::{EntryFact, Facts, Orders, SlotFact},
    live, outcome,
};
use crate::{
    journal::{Attempt, Journal, Step},
    reuse::{self, NoSlot},
};

/// The journal to store and the action to do once it is stored.
#[must_use]
pub fn next(journal: &Journal, orders: Option<&Orders>, facts: &Facts) -> (Journal, Action) {
    let mut journal = journal.clone();
    let Some(orders) = orders else { return (journal, Action::Wait) };
    // An agent that did not know all of an order may have begun less than it asks for.
    let current = journal.attempt.as_ref().is_some_and(|attempt| {
        let refused = attempt.step == Step::Failed && attempt.live.is_some();
        let waits = refused || matches!(attempt.step, Step::Staging | Step::Staged);
        attempt.plan_id == orders.order.plan_id
            && attempt.digest == orders.order.release()
            // Whether it may reboot can change until it does, and where it was refused because it may not.
            && (!waits || attempt.live.is_some() == live::is_asked(orders, facts))
    });
    if !current {
        if let Some(action) = journal.attempt.as_mut().and_then(|former| end_former(former, orders, facts)) {
            return (journal, action);
        }
        let Some(attempt) = begin(&journal, orders, facts) else { return (journal, Action::Wait) };
        journal.attempt = Some(attempt);
    }
    let Some(mut attempt) = journal.attempt.take() else { return (journal, Action::Wait) };
    let action = advance(&mut attempt, orders, facts);
    journal.attempt = Some(attempt);
    (journal, action)
}

/// What ends the attempt of an order that is gone; none where the new order can begin.
fn end_former(former: &mut Attempt, orders: &Orders, facts: &Facts) -> Option<Action> {
    if let Some(wait) = outcome::pause(former.retry_at, facts.now) {
        return Some(wait);
    }
    let slot = former.slot.clone();
    if former.live.is_some() {
        return live::end_former(former, orders, facts);
    }
    match former.step {
        // What is on trial is what the new order wants.
        Step::Trial if former.digest == orders.order.release() => None,
        // Nobody approves of that reboot any more.
        Step::Activating { .. } | Step::Rebooting { .. } if !facts.runs(&slot) => Some(disarm(former)),
        Step::Reverting { .. } => Some(leave(former, facts)),
        // Its guard ends it.
        Step::Activating { .. } | Step::Rebooting { .. } | Step::Trial => Some(Action::Wait),
        Step::Staging | Step::Staged | Step::Committed | Step::RolledBack { .. } | Step::Failed => None,
    }
}

/// Takes the entry of the trial away, and says so first: a boot after that is no failure of the image.
fn disarm(attempt: &mut Attempt) -> Action {
    if let Step::Rebooting { boot_id_before } = &attempt.step {
        attempt.step = Step::Activating { boot_id_before: boot_id_before.clone() };
    }
    Action::Disarm { slot: attempt.slot.clone() }
}

/// A new attempt; none while a trial that the journal does not know of has to end first, and none for an approval that is over.
fn begin(journal: &Journal, orders: &Orders, facts: &Facts) -> Option<Attempt> {
    let digest = orders.order.release();
    let mut attempt = Attempt {
        plan_id: orders.order.plan_id.clone(),
        image: orders.order.image.clone(),
        digest: digest.clone(),
        slot: String::new(),
        live: None,
        step: Step::Staging,
        staging: None,
        error: None,
        failures: 0,
        retry_at: 0,
        rearms: 0,
    };
    let refuse = |attempt: &mut Attempt, reason: &str, message: String| {
        attempt.step = Step::Failed;
        attempt.error = Some(PlanError { reason: reason.to_owned(), message, retryable: false });
    };
    let Some(running) = &facts.running else {
        let message = "this host does not run from an Evenkeel slot (no evenkeel.slot on its kernel command line): \
                       install it with `evenkeel-agent install`";
        refuse(&mut attempt, "HostNotManageable", message.to_owned());
        return Some(attempt);
    };
    if facts.live.is_on_trial(running) {
        // Whose trial that is nobody knows any more: the host ends it.
        return None;
    }
    if facts.release() == Some(digest.as_str()) && orders.order.target != Target::Reverted {
        attempt.slot.clone_from(&running.name);
        attempt.step = match facts.slot(&running.name).map(|fact| fact.entry) {
            Some(EntryFact::Trial { .. }) => Step::Trial,
            // It was given up: the next boot leads away from it.
            Some(EntryFact::Absent) if reuse::kept(&facts.slots).is_some() => return None,
            _ => Step::Committed,
        };
        return Some(attempt);
    }
    let booted = matches!(orders.order.target, Target::Booted | Target::Committed);
    let is_over = booted && orders.not_after.is_none_or(|not_after| facts.now >= not_after);
    if is_over && !journal.is_bad(&digest) {
        // What became of it was forgotten, as by a machine that began anew: to write it would be for nothing.
        return None;
    }
    let chosen = reuse::choose(&facts.slots, Some(&running.name), Some(&digest));
    match chosen {
        _ if live::is_asked(orders, facts) => live::begin(&mut attempt, running, facts),
        Ok(slot) => attempt.slot.clone_from(&slot.name),
        Err(NoSlot::OnTrial { .. }) => return None,
        Err(error) => refuse(&mut attempt, error.reason(), error.to_string()),
    }
    if journal.is_bad(&digest) {
        let message = format!("{digest} was booted on this node before and failed: publish a fixed image");
        refuse(&mut attempt, "DigestFailedBefore", message);
    }
    Some(attempt)
}

fn advance(attempt: &mut Attempt, orders: &Orders, facts: &Facts) -> Action {
    let urgent = orders.order.target == Target::Reverted && !matches!(attempt.step, Step::Reverting { .. });
    if let Some(wait) = outcome::pause(attempt.retry_at, facts.now).filter(|_| !urgent) {
        return wait;
    }
    if attempt.live.is_some() {
        return live::advance(attempt, orders, facts);
    }
    if orders.order.target == Target::Reverted {
        return revert(attempt, orders, facts);
    }
    let slot = attempt.slot.clone();
    match attempt.step.clone() {
        Step::Staging => Action::Stage { slot, image: attempt.image.clone() },
        Step::Staged if orders.order.target >= Target::Booted => activate(attempt, orders, facts),
        Step::Activating { .. } | Step::Rebooting { .. } if !approved(orders, facts) => disarm(attempt),
        Step::Activating { .. } => Action::Activate { slot },
        Step::Rebooting { .. } => Action::Reboot,
        // The cluster's word is not enough: the host's own checks may still be under way.
        Step::Trial if orders.order.target == Target::Committed && facts.host_checks_passed => {
            Action::Commit { slot }
        }
        Step::Reverting { .. } => Action::RevertTrial { slot },
        Step::Staged | Step::Trial | Step::Committed | Step::RolledBack { .. } | Step::Failed => Action::Wait,
    }
}

/// Whether the operator's approval to reboot still holds.
fn approved(orders: &Orders, facts: &Facts) -> bool {
    !orders.live_turn && orders.not_after.is_some_and(|not_after| facts.now < not_after)
}

fn activate(attempt: &mut Attempt, orders: &Orders, facts: &Facts) -> Action {
    let staged = facts.slot(&attempt.slot).and_then(|slot| slot.content.as_ref());
    if staged.is_none_or(|content| content.digest != attempt.digest) {
        // The slot was written to behind our back, or its disk lost it: what was approved is not there.
        attempt.step = Step::Staging;
        return Action::Stage { slot: attempt.slot.clone(), image: attempt.image.clone() };
    }
    if !approved(orders, facts) {
        attempt.error = Some(PlanError {
            reason: "ApprovalExpired".into(),
            message:
                "the approval to reboot ran out before it was used: the operator gives a new one, or compare \
                      this node's clock with the cluster's"
                    .into(),
            retryable: true,
        });
        return Action::Wait;
    }
    let Some(running) = &facts.running else { return Action::Wait };
    attempt.error = None;
    attempt.step = Step::Activating { boot_id_before: running.boot_id.clone() };
    Action::Activate { slot: attempt.slot.clone() }
}

fn revert(attempt: &mut Attempt, orders: &Orders, facts: &Facts) -> Action {
    let (cause, message) = orders.reason_to_revert();
    let slot = attempt.slot.clone();
    match attempt.step {
        Step::RolledBack { .. } => Action::Wait,
        Step::Activating { .. } | Step::Rebooting { .. } if !facts.runs(&slot) => disarm(attempt),
        Step::Activating { .. } | Step::Rebooting { .. } | Step::Trial => {
            attempt.step = Step::Reverting { cause, message, to: None };
            Action::RevertTrial { slot }
        }
        Step::Committed | Step::Reverting { .. } if is_last(attempt, facts) => {
            attempt.step = Step::Committed;
            attempt.error = Some(PlanError {
                reason: "NothingToRevertTo".into(),
                message: "no other slot was kept before, and holds a complete image that is not known to be damaged: \
                          stage the wanted image instead"
                    .into(),
                retryable: false,
            });
            Action::Wait
        }
        Step::Reverting { .. } => leave(attempt, facts),
        Step::Committed if facts.runs(&slot) => {
            let to = reuse::fallback(&facts.slots, &slot).and_then(SlotFact::digest).map(str::to_owned);
            attempt.step = Step::Reverting { cause, message, to };
            leave(attempt, facts)
        }
        Step::Staging | Step::Staged | Step::Failed | Step::Committed => {
            attempt.step = Step::rolled_back(cause, message, facts.now);
            Action::Wait
        }
    }
}

/// Whether the attempt's slot runs, was kept, and is the only one that a machine may be sent to: also where that was
/// found on the way back, as every reboot would lead to it again.
fn is_last(attempt: &Attempt, facts: &Facts) -> bool {
    let kept = attempt.step == Step::Committed || is_permanent(&attempt.slot, facts);
    kept && facts.runs(&attempt.slot) && way_back(attempt, facts).is_none()
}

fn is_permanent(slot: &str, facts: &Facts) -> bool {
    facts.slot(slot).is_some_and(|fact| fact.entry == EntryFact::Permanent)
}

/// Where a kept slot leads back to. What was written down when the machine set out holds also where the power went while
/// that slot's entry was written.
fn way_back<'a>(attempt: &Attempt, facts: &'a Facts) -> Option<&'a SlotFact> {
    let noted = match &attempt.step {
        Step::Reverting { to, .. } => to.as_deref(),
        _ => None,
    };
    let is_noted = |slot: &&SlotFact| slot.name != attempt.slot && slot.digest() == noted && slot.is_good();
    let noted = noted.and_then(|_| facts.slots.iter().find(is_noted));
    noted.or_else(|| reuse::fallback(&facts.slots, &attempt.slot))
}

/// How to leave the running slot: a trial is disarmed, a committed slot gives way to the other one.
fn leave(attempt: &Attempt, facts: &Facts) -> Action {
    let slot = attempt.slot.clone();
    match way_back(attempt, facts) {
        Some(to) if is_permanent(&slot, facts) => Action::RevertCommitted { to: to.name.clone(), from: slot },
        _ => Action::RevertTrial { slot },
    }
}
