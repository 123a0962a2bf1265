//! A model of a machine with two slots, its boot loader, its guard and its operator.

use std::collections::BTreeMap;

use evenkeel_crds::node_plan::{HostFacts, Order, Phase, PlanError, RollbackCause, Target};
use evenkeel_node_agent_core::{
    journal::{Journal, Verdict},
    machine::{
        Action, EntryFact, Facts, Orders, Outcome, RunningSlot, SlotContent, SlotFact, TRIAL_TRIES, next,
        record, resume, status,
    },
};
use jiff::{SignedDuration, Timestamp};

pub const OLD: &str = "sha256:01d";
pub const NEW: &str = "sha256:2e3";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Image {
    Good,
    Panics,
    FailsItsCheck,
}

/// What happens in one turn, besides the agent's own work.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    KilledBeforeAction,
    KilledAfterAction,
    PowerCut,
    ActionFails,
    /// The order is deleted, and given anew.
    OrderedAnew,
}

/// Turns from a boot to the end of the host's checks: the cluster may want to keep the image before.
pub const CHECK_TURNS: u32 = 3;

pub struct World {
    pub journal: Journal,
    pub slots: BTreeMap<&'static str, (Option<&'static str>, EntryFact, u32)>,
    pub running: &'static str,
    pub boots: u32,
    pub now: Timestamp,
    pub verdict: Option<Verdict>,
    /// Turns since the last boot; the host's checks take some.
    pub turns_up: u32,
    pub image: Image,
    pub orders_given: u32,
    pub target: Target,
}

impl World {
    pub fn new(image: Image) -> Self {
        Self {
            journal: Journal::default(),
            slots: BTreeMap::from([
                ("a", (Some(OLD), EntryFact::Permanent, 1)),
                ("b", (None, EntryFact::Absent, 0)),
            ]),
            running: "a",
            boots: 1,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            verdict: None,
            turns_up: 0,
            image,
            orders_given: 1,
            target: Target::Staged,
        }
    }

    pub fn facts(&self) -> Facts {
        let content = |digest: &str| SlotContent {
            image: format!("os@{digest}"),
            digest: digest.to_owned(),
            version: "1".to_owned(),
            written_at: self.now,
        };
        let digest = self.slots[self.running].0.expect("only a complete slot runs");
        Facts {
            recovery: None,
            running: Some(RunningSlot {
                name: self.running.to_owned(),
                digest: digest.to_owned(),
                boot_id: format!("boot-{}", self.boots),
            }),
            slots: self
                .slots
                .iter()
                .map(|(name, slot)| SlotFact {
                    name: (*name).to_owned(),
                    content: slot.0.map(content),
                    entry: slot.1,
                    ..SlotFact::empty(name)
                })
                .collect(),
            reset_requested: None,
            reset_done: None,
            live: evenkeel_node_agent_core::live_config::LiveConfig::default(),
            verdict: self.verdict.clone(),
            host_checks_passed: self.checked() && self.image == Image::Good,
            now: self.now,
        }
    }

    pub fn checked(&self) -> bool {
        self.running == "b" && self.turns_up >= CHECK_TURNS
    }

    /// What the guard does once the checks have ended: it sends a bad image back.
    pub fn guard(&mut self) {
        let trial = self.slots["b"].1 != EntryFact::Permanent;
        if self.checked() && self.image == Image::FailsItsCheck && trial {
            self.slots.get_mut("b").unwrap().1 = EntryFact::Absent;
            let message = "10-broken exited with 1".to_owned();
            self.verdict = Some(Verdict { digest: NEW.into(), cause: RollbackCause::HostCheck, message });
            self.boot();
        }
    }

    pub fn orders(&self) -> Orders {
        Orders {
            order: Order {
                plan_id: format!("p{}", self.orders_given),
                image: format!("os@{NEW}"),
                cloud_config: None,
                target: self.target,
            },
            not_after: Some(self.now + SignedDuration::from_mins(10)),
            revert: None,
            live: false,
            live_turn: false,
        }
    }

    pub fn order_anew(&mut self) {
        self.orders_given += 1;
        self.target = Target::Staged;
    }

    /// The boot loader: highest generation first, entries without tries last.
    pub fn boot(&mut self) {
        self.turns_up = 0;
        loop {
            self.boots += 1;
            let (name, slot) = self
                .slots
                .iter_mut()
                .filter(|(_, slot)| !matches!(slot.1, EntryFact::Absent | EntryFact::Trial { left: 0 }))
                .max_by_key(|(_, slot)| slot.2)
                .expect("no slot is bootable");
            if let EntryFact::Trial { left } = &mut slot.1 {
                *left -= 1;
            }
            let digest = slot.0.expect("the loader booted a slot that is not complete");
            if digest == NEW && self.image == Image::Panics {
                continue;
            }
            self.running = name;
            return;
        }
    }

    pub fn act(&mut self, action: &Action) -> Outcome {
        let generation = self.slots.values().map(|slot| slot.2).max().unwrap_or(0) + 1;
        let running = self.running;
        let slot = |world: &mut Self, name: &str| {
            let key = if name == "a" { "a" } else { "b" };
            *world.slots.get_mut(key).unwrap() = match action {
                Action::Stage { .. } => {
                    assert_ne!(name, running, "the running slot must never be written");
                    (Some(NEW), EntryFact::Absent, 0)
                }
                Action::Activate { .. } => (Some(NEW), EntryFact::Trial { left: TRIAL_TRIES }, generation),
                Action::Commit { .. } => (world.slots[key].0, EntryFact::Permanent, world.slots[key].2),
                _ => (world.slots[key].0, EntryFact::Absent, 0),
            };
        };
        match action {
            Action::Wait | Action::WaitUntil(_) => {}
            Action::Stage { slot: name, .. }
            | Action::Activate { slot: name }
            | Action::Commit { slot: name }
            | Action::Disarm { slot: name } => slot(self, name),
            Action::RevertTrial { slot: name } => {
                slot(self, name);
                self.boot();
            }
            Action::Reboot => self.boot(),
            Action::RevertCommitted { .. } => unreachable!("nobody asked to revert"),
            Action::WriteRecovery { .. } | Action::BeginAnew(_) | Action::WithdrawReset | Action::Live(_) => {
                unreachable!("nobody asks for that here")
            }
        }
        Outcome::Done
    }

    pub fn phase(&self) -> Phase {
        status(&self.journal, &self.facts(), None, HostFacts::default(), None, None).phase
    }

    /// One turn of agent, operator and fate.
    pub fn turn(&mut self, fault: Fault) {
        self.now += SignedDuration::from_secs(400);
        self.turns_up += 1;
        self.guard();
        let orders = self.orders();
        let boots = self.boots;
        self.journal = resume(&self.journal, Some(&orders), &self.facts());
        let (journal, action) = next(&self.journal, Some(&orders), &self.facts());
        self.journal = journal;
        let facts = self.facts();
        match fault {
            Fault::KilledBeforeAction => return,
            Fault::OrderedAnew => return self.order_anew(),
            Fault::ActionFails => {
                let error = PlanError { reason: "Io".into(), message: "no".into(), retryable: true };
                self.journal = record(&self.journal, &action, Outcome::Failed(error), &facts);
            }
            Fault::PowerCut => self.boot(),
            Fault::KilledAfterAction => {
                self.act(&action);
            }
            Fault::None => {
                let outcome = self.act(&action);
                if self.boots == boots {
                    self.journal = record(&self.journal, &action, outcome, &facts);
                }
            }
        }
        self.target = self.target.max(match self.phase() {
            Phase::Staged => Target::Booted,
            Phase::Trial => Target::Committed,
            _ => self.target,
        });
    }
}
