//! What became of an action, and what it means for the attempt.

use evenkeel_crds::node_plan::{PlanError, StagingCost};
use jiff::Timestamp;

use super::{Action, LiveAction, facts::Facts, recovery, reset};
use crate::journal::{Attempt, Journal, Step};

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// A slot was staged, at this cost.
    Staged(StagingCost),
    /// It failed.
    Failed(PlanError),
}

/// First pause after a failure, in seconds; it doubles with each further one.
const RETRY_SECONDS_MIN: i64 = 5;
/// Longest pause: a registry that was away all night is found again soon after it is back.
const RETRY_SECONDS_MAX: i64 = 300;
/// How long init may take to stop everything before it is asked again: systemd's default stop timeout of 90 s, twice.
pub(super) const REBOOT_PATIENCE_SECONDS: i64 = 180;
/// The longest pause that is ever written.
pub const PAUSE_SECONDS_MAX: i64 = RETRY_SECONDS_MAX;
const _: () = assert!(REBOOT_PATIENCE_SECONDS <= PAUSE_SECONDS_MAX);

/// The journal after `action` came to `outcome`.
#[must_use]
pub fn record(journal: &Journal, action: &Action, outcome: Outcome, facts: &Facts) -> Journal {
    if let Action::WriteRecovery { image } = action {
        return recovery::record(journal, image, outcome, facts.now);
    }
    if let Action::BeginAnew(request) = action {
        return reset::record(journal, request, outcome, facts.now);
    }
    if *action == Action::WithdrawReset {
        // What is left is seen, and taken back again.
        return journal.clone();
    }
    let mut journal = journal.clone();
    if let Some(attempt) = &mut journal.attempt {
        match outcome {
            Outcome::Failed(error) => fail(attempt, action, error, facts.now),
            Outcome::Staged(cost) => {
                attempt.staging = Some(cost);
                succeed(attempt, action, facts);
            }
            Outcome::Done => succeed(attempt, action, facts),
        }
    }
    journal
}

fn succeed(attempt: &mut Attempt, action: &Action, facts: &Facts) {
    attempt.error = None;
    attempt.failures = 0;
    attempt.retry_at = 0;
    let boot_id = facts.running.as_ref().map(|running| running.boot_id.clone()).unwrap_or_default();
    attempt.step = match action {
        Action::Stage { .. } | Action::Disarm { .. } => Step::Staged,
        Action::Activate { .. } => Step::Rebooting { boot_id_before: boot_id },
        Action::Commit { .. } | Action::Live(LiveAction::Keep) => Step::Committed,
        // A request is not a deed: ask again if nothing came of it much later.
        Action::Reboot
        | Action::RevertTrial { .. }
        | Action::RevertCommitted { .. }
        | Action::Live(LiveAction::Apply | LiveAction::Withdraw | LiveAction::GoBack) => {
            attempt.retry_at = facts.now.as_second() + REBOOT_PATIENCE_SECONDS;
            return;
        }
        Action::Wait
        | Action::WaitUntil(_)
        | Action::WriteRecovery { .. }
        | Action::BeginAnew(_)
        | Action::WithdrawReset => return,
    };
}

fn fail(attempt: &mut Attempt, action: &Action, error: PlanError, now: Timestamp) {
    // Before the reboot an error that will not go away ends the attempt with the old slot serving. On trial and on
    // the way back giving up would leave the machine between two slots: try again.
    let may_end = matches!(action, Action::Stage { .. } | Action::Activate { .. });
    if may_end && !error.retryable {
        attempt.step = Step::Failed;
    }
    attempt.failures = attempt.failures.saturating_add(1);
    attempt.retry_at = retry_at(attempt.failures, now);
    attempt.error = Some(error);
}

/// The wait until `at`, in seconds since 1970, where it is not over.
pub(super) fn pause(at: i64, now: Timestamp) -> Option<Action> {
    let left = at.saturating_sub(now.as_second());
    // A pause longer than any that we write comes from a clock that was set back: it is over.
    (1..=PAUSE_SECONDS_MAX).contains(&left).then_some(Action::WaitUntil(at))
}

/// When something is tried again that failed so often in a row.
pub(super) fn retry_at(failures: u32, now: Timestamp) -> i64 {
    let doubled = RETRY_SECONDS_MIN << failures.saturating_sub(1).min(10);
    now.as_second() + doubled.min(RETRY_SECONDS_MAX)
}
