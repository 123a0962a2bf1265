//! The recovery slot: written last, while the machine runs an image that it keeps and nothing else is to be done.

use evenkeel_crds::cloud_config::digest_of;
use jiff::Timestamp;

use super::{
    Action, EntryFact, Facts, Outcome,
    outcome::{pause, retry_at},
};
use crate::journal::{Journal, RecoveryTrouble, Step};

/// The journal without a failure that says nothing any more: of another image than is `wanted`, or of one that the slot holds.
#[must_use]
pub fn forget(journal: &Journal, wanted: Option<&str>, facts: &Facts) -> Journal {
    let mut journal = journal.clone();
    journal.recovery = journal
        .recovery
        .filter(|trouble| wanted == Some(trouble.image.as_str()) && !is_held(&trouble.image, facts));
    journal
}

/// What is to be done about the recovery slot when nothing else is; `wanted` is the image that it shall hold, by digest.
#[must_use]
pub fn write_recovery(journal: &Journal, wanted: Option<&str>, facts: &Facts) -> Option<Action> {
    let image = wanted?;
    if is_held(image, facts) || !is_settled(journal, facts) || is_chosen(facts) {
        return None;
    }
    match journal.recovery.as_ref().filter(|trouble| trouble.image == image) {
        Some(trouble) if !trouble.error.retryable => None,
        trouble => trouble
            .and_then(|trouble| pause(trouble.retry_at, facts.now))
            .or_else(|| Some(Action::WriteRecovery { image: image.to_owned() })),
    }
}

/// Whether the slot holds an image, boots it, and was not found to be damaged. On a disk without such a slot writing fails, and
/// that is told.
fn is_held(image: &str, facts: &Facts) -> bool {
    let digest = digest_of(image);
    facts.recovery.as_ref().is_some_and(|slot| {
        slot.digest() == digest && slot.entry == EntryFact::Permanent && !slot.is_damaged()
    })
}

/// Whether a slot runs that is kept, and none is on trial: what the machine falls back to must not be in doubt meanwhile.
fn is_settled(journal: &Journal, facts: &Facts) -> bool {
    let kept = |name: &str| facts.slot(name).is_some_and(|slot| slot.entry == EntryFact::Permanent);
    let done = journal.attempt.as_ref().is_none_or(|attempt| attempt.step == Step::Committed);
    done && !facts.has_trial() && facts.running.as_ref().is_some_and(|running| kept(&running.name))
}

/// Whether a person chose it for the next boot: then it is needed as it is.
fn is_chosen(facts: &Facts) -> bool {
    let others = facts.slots.iter().map(|slot| slot.generation).max().unwrap_or(0);
    facts.recovery.as_ref().is_some_and(|slot| slot.entry == EntryFact::Permanent && slot.generation > others)
}

/// The journal after the recovery slot was written, or not.
pub(super) fn record(journal: &Journal, image: &str, outcome: Outcome, now: Timestamp) -> Journal {
    let before = journal.recovery.as_ref().filter(|trouble| trouble.image == image);
    let recovery = match outcome {
        Outcome::Done | Outcome::Staged(_) => None,
        Outcome::Failed(error) => {
            let failures = before.map_or(0, |trouble| trouble.failures).saturating_add(1);
            let retry_at = retry_at(failures, now);
            Some(RecoveryTrouble { image: image.to_owned(), error, failures, retry_at })
        }
    };
    Journal { recovery, ..journal.clone() }
}

#[cfg(test)]
mod tests {
    use evenkeel_crds::node_plan::PlanError;

    use super::*;
    use crate::machine::{RunningSlot, SlotContent, SlotFact};

    const WANTED: &str = "os@sha256:02";

    fn slot(name: &str, digest: &str, entry: EntryFact) -> SlotFact {
        let content = SlotContent {
            image: format!("os@{digest}"),
            digest: digest.into(),
            version: "1".into(),
            written_at: Timestamp::UNIX_EPOCH,
        };
        SlotFact { content: Some(content), entry, ..SlotFact::empty(name) }
    }

    fn facts() -> Facts {
        Facts {
            running: Some(RunningSlot { name: "a".into(), digest: "sha256:01".into(), boot_id: "1".into() }),
            slots: vec![slot("a", "sha256:01", EntryFact::Permanent), SlotFact::empty("b")],
            recovery: Some(SlotFact::empty("recovery")),
            reset_requested: None,
            reset_done: None,
            live: crate::live_config::LiveConfig::default(),
            verdict: None,
            host_checks_passed: true,
            now: Timestamp::from_second(1_000_000).unwrap(),
        }
    }

    fn due(journal: &Journal, facts: &Facts) -> bool {
        matches!(write_recovery(journal, Some(WANTED), facts), Some(Action::WriteRecovery { .. }))
    }

    #[test]
    fn it_is_written_when_it_holds_something_else_and_nothing_is_in_doubt() {
        let journal = Journal::default();
        assert!(due(&journal, &facts()));
        assert_eq!(write_recovery(&journal, None, &facts()), None);
        let holds = |digest: &str, entry| {
            let recovery = Some(slot("recovery", digest, entry));
            Facts { recovery, ..facts() }
        };
        assert!(!due(&journal, &holds("sha256:02", EntryFact::Permanent)));
        assert!(due(&journal, &holds("sha256:02", EntryFact::Absent)), "it was cut off before its entry");
        assert!(due(&journal, &holds("sha256:01", EntryFact::Permanent)));
        let mut trial = facts();
        trial.slots[1] = slot("b", "sha256:03", EntryFact::Trial { left: 1 });
        assert!(!due(&journal, &trial));
        let mut recovers = facts();
        recovers.running.as_mut().unwrap().name = "recovery".into();
        assert!(!due(&journal, &recovers), "it runs itself");
        let chosen = SlotFact { generation: 9, ..slot("recovery", "sha256:01", EntryFact::Permanent) };
        assert!(!due(&journal, &Facts { recovery: Some(chosen), ..facts() }), "it boots next");
    }

    #[test]
    fn what_failed_is_tried_again_later_or_with_another_image() {
        let failed = |retryable| {
            let (reason, message) = ("Reason".into(), "message".into());
            let outcome = Outcome::Failed(PlanError { reason, message, retryable });
            record(&Journal::default(), WANTED, outcome, facts().now)
        };
        let later = Facts { now: Timestamp::from_second(1_000_300).unwrap(), ..facts() };
        let wait = write_recovery(&failed(true), Some(WANTED), &facts());
        assert_eq!(wait, Some(Action::WaitUntil(1_000_005)));
        assert!(due(&failed(true), &later));
        assert!(!due(&failed(false), &later));
        assert!(write_recovery(&failed(false), Some("os@sha256:03"), &facts()).is_some());
        assert_eq!(record(&failed(true), WANTED, Outcome::Done, facts().now).recovery, None);
    }

    #[test]
    fn a_failure_is_forgotten_when_it_says_nothing_any_more() {
        let error = PlanError { reason: "Reason".into(), message: "message".into(), retryable: false };
        let journal = record(&Journal::default(), WANTED, Outcome::Failed(error), facts().now);
        assert_eq!(forget(&journal, Some(WANTED), &facts()), journal);
        for other in [None, Some("os@sha256:03")] {
            assert_eq!(forget(&journal, other, &facts()).recovery, None);
        }
        let recovery = Some(slot("recovery", "sha256:02", EntryFact::Permanent));
        assert_eq!(forget(&journal, Some(WANTED), &Facts { recovery, ..facts() }).recovery, None);
    }
}
