//! A machine that updates itself: the agent's core and its hands, with the disk, the journal and the firmware in
//! memory.

use std::{path::Path, sync::Arc};

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent::{
    boot,
    disk::{BlockDevice, Disk, RegionError, Window},
    esp,
    stage::{Meter, StageRequest, stage},
};
use evenkeel_node_agent_core::{
    journal::Journal,
    layout::Role,
    machine::{
        Action, EntryFact, Facts, Orders, Outcome, RunningSlot, SlotContent, SlotFact, TRIAL_TRIES, next,
        record, resume,
    },
};
use evenkeel_registry::RegistryOptions;
use jiff::Timestamp;

use super::{
    CLOUD_CONFIG, UPDATE_SLOTS,
    firmware::{self, Fat},
    grub,
};
use crate::recorder::Recorder;

const TURNS_MAX: usize = 60;
const START: i64 = 1_800_000_000;

/// What is known besides the disk when the power goes.
#[derive(Clone, Debug)]
pub struct Known {
    pub journal: Journal,
    pub orders: Option<Orders>,
    pub running: String,
    pub boots: u32,
}

/// The machine.
pub struct Node {
    pub recorder: Arc<Recorder<Known>>,
    pub disk: Disk,
    pub known: Known,
    /// Bytes that staging found at their place, and those that it took from another slot.
    pub reused: (i64, i64),
    digest: String,
    now: i64,
    registry: RegistryOptions,
}

impl Node {
    /// Switches a machine on.
    pub fn power_on(
        recorder: Recorder<Known>,
        known: Known,
        registry: &RegistryOptions,
    ) -> Result<Self, String> {
        let recorder = Arc::new(recorder);
        let device: Arc<dyn BlockDevice> = recorder.clone();
        let disk = Disk::on(&device, Path::new("memory")).map_err(said)?;
        let (digest, registry) = (String::new(), registry.clone());
        let mut node = Self { recorder, disk, known, reused: (0, 0), digest, now: START, registry };
        node.boot()?;
        Ok(node)
    }

    pub fn esp(&self) -> Window {
        esp_of(&self.recorder, &self.disk)
    }

    /// Firmware and loader: choose, count a try, start.
    fn boot(&mut self) -> Result<(), String> {
        let files = Fat::of(&self.esp()).files()?;
        if files.contains_key(grub::ENV) {
            let started = grub::start(&files, true)?;
            let place = Fat::of(&self.esp()).place(grub::ENV)?;
            // Nobody waits for the disk here.
            started.written.iter().try_for_each(|block| self.esp().write_at(place, block)).map_err(said)?;
            self.runs(started.slot, started.digest);
            return Ok(());
        }
        let entries = firmware::entries(&self.esp())?;
        let entry = entries.first().ok_or("nothing boots any more")?;
        if let Some((left @ 1.., done)) = entry.tries {
            let (id, _) = entry.file.split_once('+').ok_or("a count is in the name")?;
            let folder = "loader/entries";
            let (from, to) =
                (format!("{folder}/{}", entry.file), format!("{folder}/{id}+{}-{}.conf", left - 1, done + 1));
            esp::open(&self.disk).map_err(said)?.rename(&from, &to).map_err(said)?;
        }
        self.runs(entry.slot.clone(), entry.digest.clone());
        Ok(())
    }

    fn runs(&mut self, slot: String, digest: String) {
        (self.known.running, self.digest) = (slot, digest);
        self.known.boots += 1;
        self.recorder.note(self.known.clone());
    }

    /// Follows an order until there is nothing to do.
    pub async fn follow(&mut self, orders: Option<&Orders>) -> Result<(), String> {
        self.known.orders = orders.cloned();
        for _ in 0..TURNS_MAX {
            let facts = self.facts()?;
            self.keep(resume(&self.known.journal, orders, &facts));
            let (journal, action) = next(&self.known.journal, orders, &facts);
            self.keep(journal);
            match action {
                Action::Wait => return Ok(()),
                Action::WaitUntil(at) => self.now = at,
                action => self.act(&action, &facts).await?,
            }
        }
        Err(format!("no end after {TURNS_MAX} turns: {:?}", self.known.journal))
    }

    async fn act(&mut self, action: &Action, facts: &Facts) -> Result<(), String> {
        let outcome = match action {
            Action::Stage { slot, image } => {
                let request = StageRequest {
                    cloud_config: self
                        .known
                        .orders
                        .as_ref()
                        .and_then(|orders| orders.order.cloud_config.as_ref())
                        .map(|_| CLOUD_CONFIG.to_owned()),
                    disk: self.disk.clone(),
                    slot: slot.clone(),
                    image: image.clone(),
                    registry: self.registry.clone(),
                    trust: None,
                    plan_id: None,
                };
                match stage(&request, &Arc::new(Meter::default())).await {
                    Ok(staged) => {
                        self.reused.0 += staged.cost.bytes_skipped;
                        self.reused.1 += staged.cost.bytes_copied;
                        Outcome::Staged(staged.cost)
                    }
                    Err(error) => Outcome::Failed(error.plan_error()),
                }
            }
            action => {
                self.switch(action).map_err(|error| format!("{action:?}: {error}"))?;
                Outcome::Done
            }
        };
        if let Outcome::Failed(error) = &outcome {
            return Err(format!("{action:?} failed: {}", error.message));
        }
        self.keep(record(&self.known.journal, action, outcome, facts));
        match action {
            Action::Reboot | Action::RevertTrial { .. } | Action::RevertCommitted { .. } => self.boot(),
            _ => Ok(()),
        }
    }

    /// As the agent does it.
    fn switch(&self, action: &Action) -> Result<(), String> {
        let bootloader = boot::open(&self.disk).map_err(said)?;
        let complete = |slot: &str| {
            let region = self.disk.slot(slot).map_err(said)?;
            let record = region.read_record().map_err(said)?;
            Ok::<_, String>((region, record))
        };
        match action {
            Action::Activate { slot } => {
                let (region, record) = complete(slot)?;
                bootloader.arm_trial(&region, &record, TRIAL_TRIES).map_err(said)
            }
            Action::Commit { slot } => bootloader.commit(slot).map_err(said),
            Action::Disarm { slot } | Action::RevertTrial { slot } => bootloader.disarm(slot).map_err(said),
            Action::RevertCommitted { to, .. } => {
                let (region, record) = complete(to)?;
                bootloader.make_default(&region, &record).map_err(said)
            }
            _ => Ok(()),
        }
    }

    fn facts(&self) -> Result<Facts, String> {
        let entries = boot::open(&self.disk).map_err(said)?.entries().map_err(said)?;
        let slot = |name: &&str| {
            let content = match self.disk.slot(name).map_err(said)?.read_record() {
                Ok(record) => Some(SlotContent {
                    digest: record.release(),
                    image: record.image,
                    version: record.version,
                    written_at: record.written_at,
                }),
                Err(RegionError::Record { .. }) => None,
                Err(error) => return Err(said(error)),
            };
            let entry = entries.iter().find(|entry| entry.name.slot == **name);
            let generation = entry.map_or(0, |entry| entry.body.generation);
            let entry = entry.map_or(EntryFact::Absent, |entry| match entry.name.tries {
                Some(tries) => EntryFact::Trial { left: tries.left },
                None => EntryFact::Permanent,
            });
            Ok(SlotFact { name: (*name).to_owned(), content, entry, generation, pinned: false, check: None })
        };
        let running = RunningSlot {
            name: self.known.running.clone(),
            digest: self.digest.clone(),
            boot_id: self.known.boots.to_string(),
        };
        Ok(Facts {
            recovery: None,
            running: Some(running),
            slots: UPDATE_SLOTS.iter().map(slot).collect::<Result<_, _>>()?,
            reset_requested: None,
            reset_done: None,
            live: evenkeel_node_agent_core::live_config::LiveConfig::default(),
            verdict: None,
            host_checks_passed: true,
            now: Timestamp::from_second(self.now).unwrap(),
        })
    }

    /// The journal is durable when this returns; the disk is not.
    fn keep(&mut self, journal: Journal) {
        if journal != self.known.journal {
            self.known.journal = journal;
            self.recorder.note(self.known.clone());
        }
    }
}

pub fn esp_of(recorder: &Arc<Recorder<Known>>, disk: &Disk) -> Window {
    let partition = disk.partition(Role::Esp).unwrap();
    Window::new(recorder.clone(), partition.disk_offset, partition.length)
}

/// That a person wants the image gone.
pub const CAUSE: RollbackCause = RollbackCause::User;

pub fn said(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
