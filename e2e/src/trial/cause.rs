//! What the agent on the old slot would say of a trial, by its own rules, from what it would see there.

use anyhow::{Context as _, Result, bail};
use evenkeel_crds::node_plan::RolledBack;
use evenkeel_node_agent_core::{
    journal::{Attempt, Journal, Step, Verdict},
    machine::{EntryFact, Facts, RunningSlot, SlotFact, resume},
};
use jiff::Timestamp;

use super::base::Listed;

/// What is told of a trial, and what it means for its image.
pub(super) struct Told {
    pub rolled_back: RolledBack,
    /// Whether this machine refuses to try the image again.
    pub condemned: bool,
}

/// The account of the trial of slot b after slot a came up, whose plan was written down before the reboot as a machine does.
pub(super) fn tell(slots: &[Listed], digest: &str, verdict: Option<Verdict>) -> Result<Told> {
    let old = slots.iter().find(|slot| slot.name == "a").and_then(|slot| slot.digest.clone());
    let old = old.context("slot a holds no image")?;
    let boot = |name: &str| name.to_owned();
    let attempt = Attempt {
        plan_id: "trial".to_owned(),
        image: format!("registry.example/os@{digest}"),
        digest: digest.to_owned(),
        slot: "b".to_owned(),
        live: None,
        step: Step::Rebooting { boot_id_before: boot("before") },
        staging: None,
        error: None,
        failures: 0,
        retry_at: 0,
        rearms: 0,
    };
    let facts = Facts {
        recovery: None,
        running: Some(RunningSlot { name: "a".to_owned(), digest: old, boot_id: boot("after") }),
        slots: slots.iter().map(fact).collect(),
        reset_requested: None,
        reset_done: None,
        live: evenkeel_node_agent_core::live_config::LiveConfig::default(),
        verdict,
        host_checks_passed: false,
        now: Timestamp::now(),
    };
    let journal = Journal { attempt: Some(attempt), ..Journal::default() };
    let journal = resume(&journal, None, &facts);
    let condemned = journal.is_bad(digest);
    match journal.attempt.map(|attempt| attempt.step) {
        Some(Step::RolledBack { rolled_back }) => Ok(Told { rolled_back, condemned }),
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
