//! The plan's status, rendered from the journal and the facts.

use std::time::Duration;

use evenkeel_crds::{
    condition::{Condition, ConditionStatus, Time, keep_transition_times},
    merge::replacing,
    node_plan::{
        Booted, HostFacts, NodePlanStatus, Phase, PlanError, Progress, RecoveryFailure, RecoveryStatus,
        ResetStatus, RolledBack, SlotState, SlotStatus, StagingCost,
    },
};
use serde_json::{Value, json};

use super::facts::{EntryFact, Facts};
use crate::journal::{Journal, Step};

/// A status that nobody acts on waits this long for one that says more.
pub const REPORT_WITHIN: Duration = Duration::from_secs(4);
/// Meanwhile the host's word is looked for this often. It costs a look at a few small files.
pub const HOST_AGAIN: Duration = Duration::from_millis(200);

/// The status to report. `before` is the status that the API server has: what did not change keeps its times.
#[must_use]
pub fn status(
    journal: &Journal,
    facts: &Facts,
    progress: Option<Progress>,
    host: HostFacts,
    generation: Option<i64>,
    before: Option<&NodePlanStatus>,
) -> NodePlanStatus {
    let attempt = journal.attempt.as_ref();
    let phase = attempt.map_or(Phase::Idle, |attempt| phase(&attempt.step));
    let rolled_back = attempt.and_then(|attempt| match &attempt.step {
        Step::RolledBack { rolled_back } => Some(rolled_back.clone()),
        _ => None,
    });
    let error = attempt.and_then(|attempt| attempt.error.clone());
    let message = rolled_back.as_ref().map(said).or(error.as_ref().map(|error| error.message.clone()));
    let reason = error.as_ref().map_or_else(|| format!("{phase:?}"), |error| error.reason.clone());
    let known = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
    NodePlanStatus {
        observed_generation: generation,
        plan_id: attempt.map(|attempt| attempt.plan_id.clone()),
        phase,
        progress: progress.filter(|_| phase == Phase::Staging),
        staging: attempt.and_then(|attempt| attempt.staging.clone()),
        slots: facts.slots.iter().map(|slot| slot_status(slot, facts)).collect(),
        booted: booted(facts),
        live: attempt.is_some_and(|attempt| attempt.live.is_some()),
        error,
        rolled_back,
        recovery: recovery(journal, facts),
        last_reset: super::reset::status(journal, facts),
        bad_digests: journal.bad_digests.iter().map(|bad| bad.digest.clone()).collect(),
        host: Some(host),
        conditions: keep_transition_times(conditions(phase, &reason, message, facts.now, generation), known),
    }
}

/// The merge patch that writes a status, whatever of ours is there: an answer that was lost may have been to a write that was
/// done. What a later version wrote there is left alone.
pub fn report(status: &NodePlanStatus) -> Result<Value, serde_json::Error> {
    let whatever = serde_json::to_value(every_field())?;
    Ok(json!({ "status": replacing(&whatever, &serde_json::to_value(status)?) }))
}

/// A status that has all of its fields, but for what is in lists: those are replaced.
fn every_field() -> NodePlanStatus {
    NodePlanStatus {
        observed_generation: Some(1),
        plan_id: Some(String::new()),
        phase: Phase::Idle,
        progress: Some(Progress { seconds_left: Some(1), ..Progress::default() }),
        staging: Some(StagingCost { conflicts: vec![String::new()], ..StagingCost::default() }),
        slots: vec![SlotStatus::default()],
        live: true,
        booted: Some(Booted { version: Some(String::new()), ..Booted::default() }),
        error: Some(PlanError::default()),
        rolled_back: Some(RolledBack {
            cause: evenkeel_crds::node_plan::RollbackCause::User,
            message: String::new(),
            at: Time(jiff::Timestamp::UNIX_EPOCH),
        }),
        recovery: Some(RecoveryStatus {
            image: Some(String::new()),
            digest: Some(String::new()),
            version: Some(String::new()),
            failed: Some(RecoveryFailure::default()),
        }),
        last_reset: Some(ResetStatus { failed: Some(PlanError::default()), ..ResetStatus::default() }),
        bad_digests: vec![String::new()],
        host: Some(HostFacts::default()),
        conditions: conditions(Phase::Idle, "", None, jiff::Timestamp::UNIX_EPOCH, None),
    }
}

/// Whether nobody acts on what a status says and the one before did not: that an order was seen, or that the host is up on
/// trial and its own checks are still to come.
#[must_use]
pub fn may_wait(before: &NodePlanStatus, after: &NodePlanStatus) -> bool {
    only_acknowledges(before, after) || is_coming_up(before, after)
}

fn is_coming_up(before: &NodePlanStatus, after: &NodePlanStatus) -> bool {
    let checks_passed = after.booted.as_ref().is_some_and(|booted| booted.host_checks_passed);
    before.phase == Phase::Rebooting && after.phase == Phase::Trial && !checks_passed && after.error.is_none()
}

/// Whether a status says nothing that the one before did not, but which generation of the order was seen.
fn only_acknowledges(before: &NodePlanStatus, after: &NodePlanStatus) -> bool {
    let mut conditions = after.conditions.clone();
    for condition in &mut conditions {
        condition.observed_generation = before.observed_generation;
    }
    let as_before =
        NodePlanStatus { observed_generation: before.observed_generation, conditions, ..after.clone() };
    as_before == *before
}

/// Whether the next step waits for a word of the host's: that its checks passed, or what came of a cloud-config.
pub fn waits_for_host(journal: &Journal, facts: &Facts) -> bool {
    journal.attempt.as_ref().is_some_and(|attempt| match attempt.step {
        Step::Trial => !facts.host_checks_passed,
        Step::Activating { .. } | Step::Reverting { .. } => attempt.live.is_some(),
        _ => false,
    })
}

fn said(rolled_back: &RolledBack) -> String {
    format!("{:?}: {}", rolled_back.cause, rolled_back.message)
}

fn phase(step: &Step) -> Phase {
    match step {
        Step::Staging => Phase::Staging,
        Step::Staged => Phase::Staged,
        Step::Activating { .. } => Phase::Activating,
        Step::Rebooting { .. } | Step::Reverting { .. } => Phase::Rebooting,
        Step::Trial => Phase::Trial,
        Step::Committed => Phase::Committed,
        Step::RolledBack { .. } => Phase::RolledBack,
        Step::Failed => Phase::Failed,
    }
}

fn slot_status(slot: &super::SlotFact, facts: &Facts) -> SlotStatus {
    let content = slot.content.as_ref();
    SlotStatus {
        name: slot.name.clone(),
        state: match (content, slot.is_damaged()) {
            (None, _) => SlotState::Empty,
            (Some(_), true) => SlotState::Damaged,
            (Some(_), false) => SlotState::Complete,
        },
        image: content.map(|content| content.image.clone()),
        digest: content.map(|content| content.digest.clone()),
        version: content.map(|content| content.version.clone()),
        bootable: match slot.entry {
            EntryFact::Absent | EntryFact::Trial { left: 0 } => facts.runs(&slot.name),
            EntryFact::Trial { .. } | EntryFact::Permanent => true,
        },
        written_at: content.map(|content| Time(content.written_at)),
        verified_at: slot.verified_at().map(Time),
        pinned: slot.pinned,
    }
}

fn recovery(journal: &Journal, facts: &Facts) -> Option<RecoveryStatus> {
    let content = facts.recovery.as_ref().and_then(|slot| slot.content.as_ref());
    let failed = journal
        .recovery
        .as_ref()
        .map(|trouble| RecoveryFailure { image: trouble.image.clone(), error: trouble.error.clone() });
    (content.is_some() || failed.is_some()).then(|| RecoveryStatus {
        image: content.map(|content| content.image.clone()),
        digest: content.map(|content| content.digest.clone()),
        version: content.map(|content| content.version.clone()),
        failed,
    })
}

fn booted(facts: &Facts) -> Option<Booted> {
    let running = facts.running.as_ref()?;
    let content = facts.slot(&running.name).and_then(|slot| slot.content.as_ref());
    Some(Booted {
        slot: running.name.clone(),
        digest: facts.live.release(running).to_owned(),
        version: content.map(|content| content.version.clone()),
        boot_id: running.boot_id.clone(),
        host_checks_passed: facts.host_checks_passed,
    })
}

/// `Ready`, and of `Reconciling` and `Stalled` what is so: kstatus takes one that is not there for one that is not so, and the API
/// server pays for each field in every write to the plan.
fn conditions(
    phase: Phase,
    reason: &str,
    message: Option<String>,
    now: jiff::Timestamp,
    generation: Option<i64>,
) -> Vec<Condition> {
    let stalled = matches!(phase, Phase::RolledBack | Phase::Failed);
    let settled = matches!(phase, Phase::Idle | Phase::Committed);
    let message = message.unwrap_or_else(|| format!("the node's plan is in phase {phase:?}"));
    let condition = |kind: &str, status: ConditionStatus| Condition {
        r#type: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.clone(),
        last_transition_time: Time(now),
        observed_generation: generation,
    };
    let ready = if settled { ConditionStatus::True } else { ConditionStatus::False };
    let also = match (settled, stalled) {
        (true, _) => None,
        (false, true) => Some("Stalled"),
        (false, false) => Some("Reconciling"),
    };
    let also = also.map(|kind| condition(kind, ConditionStatus::True));
    [condition("Ready", ready)].into_iter().chain(also).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_waits_that_only_acknowledges_an_order() {
        let status = |generation, boot_id: &str| {
            let running = Some(crate::machine::RunningSlot {
                name: "a".into(),
                digest: "sha256:1".into(),
                boot_id: boot_id.into(),
            });
            let facts = Facts {
                recovery: None,
                running,
                slots: Vec::new(),
                reset_requested: None,
                reset_done: None,
                live: crate::live_config::LiveConfig::default(),
                verdict: None,
                host_checks_passed: true,
                now: jiff::Timestamp::UNIX_EPOCH,
            };
            super::status(&Journal::default(), &facts, None, HostFacts::default(), generation, None)
        };
        let before = status(Some(1), "one");
        assert_eq!(before.conditions[0].observed_generation, Some(1));
        assert!(may_wait(&before, &status(Some(2), "one")));
        assert!(!may_wait(&before, &status(Some(2), "two")));
    }

    #[test]
    fn a_host_that_is_up_waits_for_its_checks_and_says_what_went_wrong_at_once() {
        let before = NodePlanStatus { phase: Phase::Rebooting, ..NodePlanStatus::default() };
        let booted = |host_checks_passed| Some(Booted { host_checks_passed, ..Booted::default() });
        let trial =
            NodePlanStatus { phase: Phase::Trial, booted: booted(false), ..NodePlanStatus::default() };
        assert!(may_wait(&before, &trial));
        assert!(!may_wait(&before, &NodePlanStatus { booted: booted(true), ..trial.clone() }));
        assert!(!may_wait(&before, &NodePlanStatus { error: Some(PlanError::default()), ..trial.clone() }));
        let back = NodePlanStatus { phase: Phase::RolledBack, ..trial.clone() };
        assert!(!may_wait(&before, &back));
        // What was said once is not taken back in silence.
        let passed = NodePlanStatus { booted: booted(true), ..trial.clone() };
        assert!(!may_wait(&passed, &trial));
    }

    #[test]
    fn conditions_tell_what_is_so() {
        let told = |phase| -> Vec<(String, bool)> {
            conditions(phase, "R", None, jiff::Timestamp::UNIX_EPOCH, None)
                .into_iter()
                .map(|condition| (condition.r#type, condition.status == ConditionStatus::True))
                .collect()
        };
        assert_eq!(told(Phase::Committed), [("Ready".into(), true)]);
        assert_eq!(told(Phase::Staging), [("Ready".into(), false), ("Reconciling".into(), true)]);
        assert_eq!(told(Phase::Failed), [("Ready".into(), false), ("Stalled".into(), true)]);
    }

    #[test]
    fn a_report_removes_what_is_not_so_any_more() {
        let report = report(&NodePlanStatus { booted: Some(Booted::default()), ..NodePlanStatus::default() });
        let report = report.unwrap();
        assert!(report["status"].get("error").is_some_and(Value::is_null));
        assert!(report["status"]["booted"].get("version").is_some_and(Value::is_null));
    }
}
