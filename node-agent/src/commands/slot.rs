//! `activate`, `commit` and `rollback`.

use anyhow::Result;
use evenkeel_node_agent_core::boot_entry::{BootEntry, next_boot};

use super::{disk, refused};
use crate::{
    args::{ActivateArgs, SlotArgs},
    boot::{self, Bootloader, SystemdBoot},
    disk::{Disk, UPDATE_SLOTS},
    run::host,
};

/// A disk, its boot loader's entries, and the slot that runs if the disk is this machine's.
pub(super) struct Situation {
    pub disk: Disk,
    pub bootloader: SystemdBoot,
    pub entries: Vec<BootEntry>,
    pub running: Option<String>,
}

impl Situation {
    pub(super) fn look(args: &crate::args::DiskArg) -> Result<Self> {
        let disk = disk::open(args)?;
        let bootloader = boot::open(&disk)?;
        let entries = bootloader.entries()?;
        let running = if args.disk.is_none() { host::running_slot(&args.proc)? } else { None };
        Ok(Self { disk, bootloader, entries, running: running.map(|running| running.name) })
    }

    /// The slot that must stay as it is: the one that runs, or on a disk that is not running the one that boots next.
    pub(super) fn current(&self) -> Option<&str> {
        let next = next_boot(&self.entries).map(|entry| entry.name.slot.as_str());
        self.running.as_deref().or(next)
    }

    /// The slot that was named, or the passive one; refused when it is the current one.
    pub(super) fn passive(&self, named: Option<&str>) -> Result<String> {
        // A slot on trial that does not run may be written: the kept one is what the machine falls back to.
        let kept = self
            .entries
            .iter()
            .filter(|entry| entry.name.tries.is_none())
            .max_by_key(|entry| entry.body.generation);
        let current = self.running.as_deref().or(kept.map(|entry| entry.name.slot.as_str()));
        let slot = named.unwrap_or_else(|| other(current));
        if !UPDATE_SLOTS.contains(&slot) {
            return Err(refused(format!("there is no slot {slot} that can be written: use a or b")));
        }
        if Some(slot) == current {
            return Err(refused(format!("slot {slot} is the one in use: choose the other one")));
        }
        Ok(slot.to_owned())
    }
}

pub(super) fn activate(args: &ActivateArgs) -> Result<()> {
    let situation = Situation::look(&args.slot.disk)?;
    let name = situation.passive(args.slot.slot.as_deref())?;
    let slot = situation.disk.slot(&name)?;
    let record = slot.read_record()?;
    situation.bootloader.arm_trial(&slot, &record, args.tries)?;
    eprintln!("slot {name} ({}) boots next, at most {} times until it is kept", record.version, args.tries);
    Ok(())
}

pub(super) fn commit(args: &SlotArgs) -> Result<()> {
    let situation = Situation::look(&args.disk)?;
    let Some(slot) = args.slot.as_deref().or(situation.current()) else {
        return Err(refused("no slot of this disk is bootable, so none can be kept: activate one first"));
    };
    situation.bootloader.commit(slot)?;
    eprintln!("slot {slot} is kept");
    Ok(())
}

pub(super) fn rollback(args: &SlotArgs) -> Result<()> {
    let situation = Situation::look(&args.disk)?;
    let trial = situation.entries.iter().find(|entry| entry.name.tries.is_some());
    if let (Some(trial), None) = (trial, &args.slot) {
        situation.bootloader.disarm(&trial.name.slot)?;
        eprintln!("slot {} is not bootable any more; the old slot boots next", trial.name.slot);
        return Ok(());
    }
    let name = args.slot.as_deref().unwrap_or_else(|| other(situation.current()));
    let slot = situation.disk.slot(name)?;
    let record = slot.read_record()?;
    situation.bootloader.make_default(&slot, &record)?;
    eprintln!("slot {name} ({}) boots next; reboot to use it", record.version);
    Ok(())
}

fn other(current: Option<&str>) -> &'static str {
    UPDATE_SLOTS.into_iter().find(|slot| Some(*slot) != current).unwrap_or(UPDATE_SLOTS[0])
}
