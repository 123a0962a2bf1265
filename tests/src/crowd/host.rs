//! A host as the agent's update machine sees it: two slots, and which of them runs.

use evenkeel_e2e::registry::Pushed;
use evenkeel_node_agent_core::machine::{EntryFact, Facts, RunningSlot, SlotContent, SlotFact, TRIAL_TRIES};
use jiff::Timestamp;
use uuid::Uuid;

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    running: RunningSlot,
    slots: Vec<SlotFact>,
    checks_passed: bool,
}

impl Host {
    /// One that runs an image from slot `a`.
    pub fn installed(image: &Pushed) -> Self {
        let kept = SlotFact {
            content: Some(content(&image.pinned, &image.digest)),
            entry: EntryFact::Permanent,
            ..SlotFact::empty("a")
        };
        let boot_id = Uuid::new_v4().to_string();
        let running = RunningSlot { name: "a".to_owned(), digest: image.digest.clone(), boot_id };
        Self { running, slots: vec![kept, SlotFact::empty("b")], checks_passed: true }
    }

    /// The boot that it is in.
    pub fn boot_id(&self) -> &str {
        &self.running.boot_id
    }

    /// What is seen of it.
    pub fn facts(&self) -> Facts {
        Facts {
            recovery: None,
            running: Some(self.running.clone()),
            slots: self.slots.clone(),
            reset_requested: None,
            reset_done: None,
            live: evenkeel_node_agent_core::live_config::LiveConfig::default(),
            verdict: None,
            host_checks_passed: self.checks_passed,
            now: Timestamp::now(),
        }
    }

    /// Writes an image into a slot.
    pub fn stage(&mut self, slot: &str, image: &str) {
        let digest = image.rsplit_once('@').map_or(image, |(_, digest)| digest);
        self.change(slot, |slot| slot.content = Some(content(image, digest)));
    }

    /// Writes a slot's boot entry.
    pub fn set_entry(&mut self, slot: &str, entry: EntryFact) {
        self.change(slot, |slot| {
            slot.entry = entry;
            slot.generation += 1;
        });
    }

    /// Starts anew, from a slot on trial if there is one. Its health checks have not been run then.
    pub fn reboot(&mut self) {
        let on_trial = |slot: &&mut SlotFact| matches!(slot.entry, EntryFact::Trial { left: 1.. });
        if let Some(slot) = self.slots.iter_mut().find(on_trial) {
            slot.entry = EntryFact::Trial { left: TRIAL_TRIES - 1 };
            self.running.name.clone_from(&slot.name);
            self.running.digest = slot.digest().unwrap_or_default().to_owned();
            self.checks_passed = false;
        }
        self.running.boot_id = Uuid::new_v4().to_string();
    }

    /// The host's own health checks pass; whether that is news.
    pub fn pass_checks(&mut self) -> bool {
        !std::mem::replace(&mut self.checks_passed, true)
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut SlotFact)) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.name == name) {
            change(slot);
        }
    }
}

fn content(image: &str, digest: &str) -> SlotContent {
    SlotContent {
        image: image.to_owned(),
        digest: digest.to_owned(),
        version: "1".to_owned(),
        written_at: Timestamp::now(),
    }
}
