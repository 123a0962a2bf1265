//! What was wanted and what was seen.

use evenkeel_crds::node_plan::{NodePlanSpec, Order, Revert, RollbackCause};
use jiff::Timestamp;

use crate::{journal::Verdict, live_config::LiveConfig, reset::Reset, slot_check::SlotCheck};

/// What was seen on the machine in one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The slot that runs; absent on a host without Evenkeel's layout.
    pub running: Option<RunningSlot>,
    /// The upgradeable slots of the disk, by name.
    pub slots: Vec<SlotFact>,
    /// The recovery slot, on a disk that has one.
    pub recovery: Option<SlotFact>,
    /// What the initrd is asked to do and has not done.
    pub reset_requested: Option<Reset>,
    /// The last order of the cluster's to begin anew that the initrd carried out.
    pub reset_done: Option<String>,
    /// Cloud-configs that were applied without a reboot.
    pub live: LiveConfig,
    /// What the guard left, if it sent the machine back.
    pub verdict: Option<Verdict>,
    /// Whether the guard says that the host's own health checks passed in this boot.
    pub host_checks_passed: bool,
    /// The time.
    pub now: Timestamp,
}

/// The slot that runs, from the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningSlot {
    /// `evenkeel.slot`.
    pub name: String,
    /// `evenkeel.digest`: the image's digest, and with a cloud-config of the cluster's a part of that one's.
    pub digest: String,
    /// The kernel's boot ID.
    pub boot_id: String,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFact {
    /// `a`, `b`, …
    pub name: String,
    /// What its record says; absent when the slot is not complete.
    pub content: Option<SlotContent>,
    /// Its boot entry.
    pub entry: EntryFact,
    /// Rises with each entry that is written; 0 without an entry.
    pub generation: u64,
    /// Whether a person protected it from reuse.
    pub pinned: bool,
    /// The last look at all of its bytes, if it speaks of the present content.
    pub check: Option<SlotCheck>,
}

impl SlotFact {
    /// A slot that holds nothing.
    pub fn empty(name: &str) -> Self {
        let (content, entry) = (None, EntryFact::Absent);
        Self { name: name.to_owned(), content, entry, generation: 0, pinned: false, check: None }
    }

    /// When all of it was last read and found to be what was written. Writing ends with such a look.
    pub fn verified_at(&self) -> Option<Timestamp> {
        let written = self.content.as_ref().map(|content| content.written_at);
        match &self.check {
            Some(SlotCheck { damaged_at: Some(_), .. }) => None,
            check => check.as_ref().map(|check| check.at).or(written),
        }
    }

    /// Whether it was found to hold something else than what was written.
    pub fn is_damaged(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.damaged_at.is_some())
    }

    /// Whether it is complete, and not known to be damaged.
    pub fn is_good(&self) -> bool {
        self.content.is_some() && !self.is_damaged()
    }

    /// What is in it, as `digest` of its content says.
    pub fn digest(&self) -> Option<&str> {
        self.content.as_ref().map(|content| content.digest.as_str())
    }
}

/// What a complete slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotContent {
    /// The reference as it was asked for.
    pub image: String,
    /// `sha256:…`, and with a cloud-config of the cluster's a part of that one's: what runs when the slot is booted.
    pub digest: String,
    /// The image's version.
    pub version: String,
    /// When it was written.
    pub written_at: Timestamp,
}

/// A slot's boot entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFact {
    /// There is none.
    Absent,
    /// Bootable so many times more.
    Trial {
        /// Tries left; 0 means that the loader has given it up.
        left: u32,
    },
    /// Bootable without a count.
    Permanent,
}

/// What the operator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// Which image, and how far.
    pub order: Order,
    /// When an approval to reboot runs out.
    pub not_after: Option<Timestamp>,
    /// Why the order is to go back.
    pub revert: Option<Revert>,
    /// Whether another cloud-config alone is applied without a reboot.
    pub live: bool,
    /// Whether an approval is for that, and not for a reboot.
    pub live_turn: bool,
}

impl Orders {
    /// The orders in a plan's spec, if there are any.
    pub fn of(spec: &NodePlanSpec) -> Option<Self> {
        Some(Self {
            order: spec.order()?,
            not_after: spec.not_after.map(|time| time.0),
            revert: spec.revert.clone(),
            live: spec.live,
            live_turn: spec.disruption.as_ref().is_some_and(|record| record.live),
        })
    }

    /// Why the order is to go back, for a status.
    pub(super) fn reason_to_revert(&self) -> (RollbackCause, String) {
        self.revert.clone().map_or_else(
            || (RollbackCause::User, "the operator asked for it".to_owned()),
            |revert| (revert.cause, revert.message),
        )
    }
}

impl Facts {
    /// What the machine runs, with the cloud-config that it is configured by.
    pub fn release(&self) -> Option<&str> {
        self.running.as_ref().map(|running| self.live.release(running))
    }

    /// A slot by name.
    pub fn slot(&self, name: &str) -> Option<&SlotFact> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Whether a slot can still be booted on trial.
    pub fn has_trial(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.entry, EntryFact::Trial { left: 1.. }))
    }

    /// Whether `slot` is the one that runs.
    pub fn runs(&self, slot: &str) -> bool {
        self.running.as_ref().is_some_and(|running| running.name == slot)
    }
}
