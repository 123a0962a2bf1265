//! A machine that begins anew because the cluster says so: while it runs an image that it keeps and nothing else is to be
//! done, the initrd is asked, and the machine reboots.

use evenkeel_crds::node_plan::{PlanError, ResetOrder, ResetStatus};
use jiff::Timestamp;

use super::{
    Action, EntryFact, Facts, Outcome,
    outcome::{REBOOT_PATIENCE_SECONDS, pause},
};
use crate::{
    journal::{Journal, ResetAttempt, Step},
    reset::{Asked, Reset},
};

/// The journal as the facts have it: without what is of another order than `order`, and with a boot that should have begun
/// anew and has not.
#[must_use]
pub fn notice(journal: &Journal, order: Option<&ResetOrder>, facts: &Facts) -> Journal {
    let mut journal = journal.clone();
    journal.reset = journal.reset.filter(|attempt| order.is_some_and(|order| order.id == attempt.id));
    let Some((order, running)) = order.zip(facts.running.as_ref()) else { return journal };
    if running.boot_id != order.boot_id && !is_done(order, facts) {
        let message =
            "the machine was booted, and its system does not say that it began anew: build the image with an \
             `init` of this version, and look whether another slot was booted"
                .to_owned();
        let error = PlanError { reason: "NotReset".to_owned(), message, retryable: false };
        journal.reset = Some(ResetAttempt { id: order.id.clone(), error: Some(error), ask_again_at: 0 });
    }
    journal
}

/// What is to be done about it when nothing else is. What a person asked of the initrd by hand is theirs.
#[must_use]
pub fn begin_anew(journal: &Journal, order: Option<&ResetOrder>, facts: &Facts) -> Option<Action> {
    let running = facts.running.as_ref()?;
    let Some(order) = order.filter(|order| is_due(journal, order, facts)) else {
        return asked(facts).map(|_| Action::WithdrawReset);
    };
    let request = || Reset {
        slot: running.name.clone(),
        digest: running.digest.clone(),
        wipe_state: order.wipe.state,
        wipe_oem: order.wipe.oem,
        asked: Some(Asked { id: order.id.clone(), boot_id: running.boot_id.clone() }),
    };
    let attempt = journal.reset.as_ref();
    let waits = attempt.and_then(|attempt| pause(attempt.ask_again_at, facts.now));
    waits.or_else(|| Some(Action::BeginAnew(request())))
}

/// What is to be done without a plan: a request of a boot that is over was meant for this one, and was not carried out.
#[must_use]
pub fn left_over(facts: &Facts) -> Option<Action> {
    let running = facts.running.as_ref()?;
    asked(facts).filter(|asked| asked.boot_id != running.boot_id).map(|_| Action::WithdrawReset)
}

/// What became of the last order.
#[must_use]
pub fn status(journal: &Journal, facts: &Facts) -> Option<ResetStatus> {
    let failed = journal.reset.as_ref().filter(|attempt| attempt.error.is_some());
    let failed = failed.filter(|attempt| facts.reset_done.as_ref() != Some(&attempt.id));
    let failed = failed.map(|attempt| ResetStatus { id: attempt.id.clone(), failed: attempt.error.clone() });
    let done = || facts.reset_done.clone().map(|id| ResetStatus { id, failed: None });
    failed.or_else(done)
}

/// The request of a cluster that the initrd has not done.
fn asked(facts: &Facts) -> Option<&Asked> {
    facts.reset_requested.as_ref()?.asked.as_ref()
}

fn is_done(order: &ResetOrder, facts: &Facts) -> bool {
    facts.reset_done.as_ref() == Some(&order.id)
}

fn is_due(journal: &Journal, order: &ResetOrder, facts: &Facts) -> bool {
    let failed = journal.reset.as_ref().is_some_and(|attempt| attempt.error.is_some());
    let this_boot = facts.running.as_ref().is_some_and(|running| running.boot_id == order.boot_id);
    let in_time = this_boot && facts.now < order.not_after.0;
    in_time && !failed && !is_done(order, facts) && is_settled(journal, facts)
}

/// Whether the slot that runs is kept and boots next, and no update is under way.
fn is_settled(journal: &Journal, facts: &Facts) -> bool {
    let over =
        |step: &Step| matches!(step, Step::Staged | Step::Committed | Step::RolledBack { .. } | Step::Failed);
    let running = facts.running.as_ref().and_then(|running| facts.slot(&running.name));
    let all = facts.slots.iter().chain(&facts.recovery).filter(|slot| slot.entry == EntryFact::Permanent);
    let newest = all.map(|slot| slot.generation).max();
    let boots_next = |slot: &&super::SlotFact| {
        slot.entry == EntryFact::Permanent && Some(slot.generation) == newest && !slot.is_damaged()
    };
    journal.attempt.as_ref().is_none_or(|attempt| over(&attempt.step))
        && !facts.has_trial()
        && running.is_some_and(|slot| boots_next(&slot))
}

/// The journal after the initrd and init were asked. A request to init is not a reboot: it is asked again much later.
pub(super) fn record(journal: &Journal, reset: &Reset, outcome: Outcome, now: Timestamp) -> Journal {
    let id = reset.asked.as_ref().map(|asked| asked.id.clone()).unwrap_or_default();
    let error = match outcome {
        Outcome::Failed(error) => Some(error),
        Outcome::Done | Outcome::Staged(_) => None,
    };
    let attempt = ResetAttempt { id, error, ask_again_at: now.as_second() + REBOOT_PATIENCE_SECONDS };
    Journal { reset: Some(attempt), ..journal.clone() }
}

#[cfg(test)]
mod tests;
