//! What the agent on the old slot would say of a trial, by its own rules, from what it would see there.

use anyhow::{Context as _, Result, bail};
use evenkeel_crds::node_plan::RolledBack;
use evenkeel_node_agent_core::{
    journal::{Attempt, Journal, Step, Verdict},
    machine::{EntryFact, Facts, RunningSlot, SlotFact, resume},
};
use jiff::Timestamp;

use super::base::Listed;

/// The account of the trial of slot b after slot a came up, whose plan was written down before the reboot as a machine does.
pub(super) fn cause(slots: &[Listed], verdict: Option<Verdict>) -> Result<RolledBack> {
    let digest = |name: &str| {
        let slot = slots.iter().find(|slot| slot.name == name);
        slot.and_then(|slot| slot.digest.clone()).with_context(|| format!("slot {name} holds no image"))
    };
    let boot = |name: &str| name.to_owned();
    let attempt = Attempt {
        plan_id: "trial".to_owned(),
        image: format!("registry.example/os@{}", digest("b")?),
        digest: digest("b")?,
        slot: "b".to_owned(),
        step: Step::Rebooting { boot_id_before: boot("before") },
        staging: None,
        error: None,
        failures: 0,
        retry_at: 0,
        rearms: 0,
    };
    let facts = Facts {
        running: Some(RunningSlot { name: "a".to_owned(), digest: digest("a")?, boot_id: boot("after") }),
        slots: slots.iter().map(fact).collect(),
        verdict,
        host_checks_passed: false,
        now: Timestamp::now(),
    };
    let journal = Journal { attempt: Some(attempt), ..Journal::default() };
    match resume(&journal, None, &facts).attempt.map(|attempt| attempt.step) {
        Some(Step::RolledBack { rolled_back }) => Ok(rolled_back),
        other => bail!("the trial has not ended: {other:?}"),
    }
}

fn fact(slot: &Listed) -> SlotFact {
    let entry = match (slot.tries_left, slot.bootable) {
        (Some(left), _) => EntryFact::Trial { left },
        (None, true) => EntryFact::Permanent,
        (None, false) => EntryFact::Absent,
    };
    SlotFact { entry, ..SlotFact::empty(&slot.name) }
}
