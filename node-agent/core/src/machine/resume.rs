//! Makes the journal agree with the facts: where an attempt really stands after a restart or a reboot.

use evenkeel_crds::node_plan::RollbackCause;

use super::{
    facts::{EntryFact, Facts, Orders, RunningSlot},
    live,
};
use crate::{
    journal::{Attempt, Journal, Step},
    reuse,
};

/// The journal as the facts have it. Equal to the given one when nothing happened since it was written.
#[must_use]
pub fn resume(journal: &Journal, orders: Option<&Orders>, facts: &Facts) -> Journal {
    let mut journal = journal.clone();
    let Some(running) = &facts.running else { return journal };
    let attempt = journal.attempt.take().map(|attempt| catch_up(attempt, running, facts, &mut journal));
    let attempt = attempt.filter(|attempt| {
        if attempt.live.is_some() {
            !live::is_void(attempt, running, facts)
        } else {
            !lost_its_slot(attempt, &running.name, facts)
        }
    });
    journal.attempt = attempt.or_else(|| adopt_trial(orders, facts));
    journal
}

/// The attempt at the step where it really stands.
fn catch_up(mut attempt: Attempt, running: &RunningSlot, facts: &Facts, journal: &mut Journal) -> Attempt {
    let step = match attempt.step.clone() {
        _ if attempt.live.is_some() => live::catch_up(&mut attempt, running, facts, journal),
        Step::Activating { boot_id_before } | Step::Rebooting { boot_id_before }
            if boot_id_before != running.boot_id =>
        {
            after_reboot(&mut attempt, facts, journal)
        }
        Step::Trial => after_reboot(&mut attempt, facts, journal),
        Step::Reverting { cause, message, .. } if running.name != attempt.slot => {
            go_back(&attempt.digest, cause, message, facts, journal)
        }
        Step::Committed if facts.release() != Some(attempt.digest.as_str()) => {
            left_behind(&attempt, &running.name, facts)
        }
        step => step,
    };
    if step == attempt.step {
        return attempt;
    }
    // Pauses and failures belong to the step that had them.
    Attempt { step, error: None, failures: 0, retry_at: 0, ..attempt }
}

/// An attempt that was to write a slot which is in use by now: somebody booted it, or what runs lost its own entry.
fn lost_its_slot(attempt: &Attempt, running: &str, facts: &Facts) -> bool {
    matches!(attempt.step, Step::Staging | Step::Staged)
        && reuse::in_use(&facts.slots, Some(running)).contains(&attempt.slot.as_str())
}

/// A kept slot that does not run any more. Neither a person's choice nor a failing disk says anything about the image.
fn left_behind(attempt: &Attempt, running: &str, facts: &Facts) -> Step {
    let slot = &attempt.slot;
    let given_up = facts.slot(slot).is_some_and(|fact| fact.entry == EntryFact::Trial { left: 0 });
    let (cause, message) = if given_up {
        let message = format!(
            "slot {slot} was kept, and at the last boot it did not hold what its root hash says, so that slot \
             {running} runs now: check the disk, then stage the image again"
        );
        (RollbackCause::Bootloader, message)
    } else {
        let message = format!(
            "slot {slot} was kept, but slot {running} runs now: it was chosen at the boot menu or by `evenkeel-agent \
             rollback`"
        );
        (RollbackCause::User, message)
    };
    Step::rolled_back(cause, message, facts.now)
}

/// A trial of the ordered image that the journal does not know of: the state partition was lost, the order was not.
fn adopt_trial(orders: Option<&Orders>, facts: &Facts) -> Option<Attempt> {
    let orders = orders?;
    let running = facts.running.as_ref()?;
    let on_trial = matches!(facts.slot(&running.name)?.entry, EntryFact::Trial { .. });
    let applied = live::adopt(orders, running, facts);
    (on_trial && running.digest == orders.order.release() || applied.is_some()).then(|| Attempt {
        plan_id: orders.order.plan_id.clone(),
        image: orders.order.image.clone(),
        digest: orders.order.release(),
        slot: running.name.clone(),
        live: applied,
        step: Step::Trial,
        staging: None,
        error: None,
        failures: 0,
        retry_at: 0,
        rearms: 0,
    })
}

/// How often a trial is armed again after the machine came up on the old slot without having tried the new one.
pub(super) const REARMS_MAX: u32 = 2;

fn after_reboot(attempt: &mut Attempt, facts: &Facts, journal: &mut Journal) -> Step {
    let slot = attempt.slot.as_str();
    let digest = attempt.digest.as_str();
    let entry = facts.slot(slot).map_or(EntryFact::Absent, |fact| fact.entry);
    if facts.running.as_ref().is_some_and(|running| running.name == slot && running.digest == digest) {
        return if entry == EntryFact::Permanent { Step::Committed } else { Step::Trial };
    }
    if let Some(verdict) = facts.verdict.as_ref().filter(|verdict| verdict.digest == digest) {
        return go_back(digest, verdict.cause, verdict.message.clone(), facts, journal);
    }
    let untried = match attempt.step {
        // The power went before the entry was written.
        Step::Activating { .. } => entry != EntryFact::Trial { left: 0 },
        _ => matches!(entry, EntryFact::Trial { left: 1.. }),
    };
    if untried && attempt.rearms < REARMS_MAX {
        attempt.rearms += 1;
        return Step::Staged;
    }
    let message = format!(
        "slot {slot} was booted on trial and did not come up far enough to say why: the boot loader went back to the \
         old slot. Look at the machine's console for a kernel panic or an initrd that stopped"
    );
    go_back(digest, RollbackCause::Bootloader, message, facts, journal)
}

pub(super) fn go_back(
    digest: &str,
    cause: RollbackCause,
    message: String,
    facts: &Facts,
    journal: &mut Journal,
) -> Step {
    // A wish to go back, a person's or the rollout's, and a cluster that was away, say nothing about the image here.
    if !matches!(cause, RollbackCause::User | RollbackCause::Rollout | RollbackCause::ClusterUnreachable) {
        journal.remember_bad(digest, cause);
    }
    Step::rolled_back(cause, message, facts.now)
}
