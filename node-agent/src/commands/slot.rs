//! `activate`, `commit`, `rollback`, `pin` and `unpin`.

use std::path::Path;

use anyhow::Result;
use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent_core::{
    boot_entry::{BootEntry, next_boot},
    journal::Verdict,
    machine::SlotFact,
    reset::Reset,
    reuse,
    slot_check::SlotChecks,
    slot_record::SlotRecord,
};

use super::{disk, refused};
use crate::{
    args::{ActivateArgs, DiskArg, PinArgs, RollbackArgs, SlotArgs, StateArg},
    boot::{self, Bootloader},
    causes::with_causes,
    disk::Disk,
    pins, reset,
    run::host,
    slots,
    state_dir::StateDir,
    tell::tell,
};

/// A disk, its boot loader's entries, its slots, and the slot that runs if the disk is this machine's.
pub(super) struct Situation {
    pub disk: Disk,
    pub bootloader: Box<dyn Bootloader>,
    pub entries: Vec<BootEntry>,
    slots: Vec<SlotFact>,
    running: Option<String>,
}

impl Situation {
    pub(super) fn look(args: &DiskArg) -> Result<Self> {
        Self::look_with(args, &SlotChecks::default())
    }

    /// The same with what is remembered of looks at the slots' bytes.
    pub(super) fn look_remembering(args: &DiskArg, state: &StateArg) -> Result<Self> {
        Self::look_with(args, &checks(disk::state_dir(args, state).as_deref()))
    }

    fn look_with(args: &DiskArg, checks: &SlotChecks) -> Result<Self> {
        let disk = disk::open(args)?;
        let bootloader = boot::open(&disk)?;
        let entries = bootloader.entries()?;
        let slots = slots::facts(&disk, &entries, checks)?;
        let running = if args.disk.is_none() { host::running_slot(&args.proc)? } else { None };
        Ok(Self { disk, bootloader, entries, slots, running: running.map(|running| running.name) })
    }

    /// The slot that runs, if it is of this disk.
    pub(super) fn running(&self) -> Option<&str> {
        self.running.as_deref()
    }

    /// The slot that must stay as it is: the one that runs, or on a disk that is not running the one that boots next.
    fn current(&self) -> Option<&str> {
        let next = next_boot(&self.entries).map(|entry| entry.name.slot.as_str());
        self.running.as_deref().or(next)
    }

    /// Whether a slot runs.
    pub(super) fn runs(&self, slot: &str) -> bool {
        self.running.as_deref() == Some(slot)
    }

    /// The slot that boots when no trial is under way.
    pub(super) fn kept(&self) -> Option<&str> {
        reuse::kept(&self.slots).map(|slot| slot.name.as_str())
    }

    /// Whether a slot is on trial, and nobody has seen it boot.
    fn was_never_booted(&self, slot: &str) -> bool {
        let mut trials =
            self.entries.iter().filter(|entry| entry.name.slot == slot).map(|entry| entry.name.tries);
        !self.runs(slot) && trials.any(|tries| tries.is_some_and(|tries| tries.left > 0 && tries.done == 0))
    }

    /// The slot that was named, or the one to write next; refused when it is in use.
    pub(super) fn passive(&self, wanted: Option<&str>) -> Result<String> {
        let Some(slot) = wanted else {
            let chosen = reuse::choose(&self.slots, self.running.as_deref(), None);
            return chosen.map(|slot| slot.name.clone()).map_err(|error| refused(error.to_string()));
        };
        disk::slot(&self.disk, slot)?;
        let names: Vec<&str> = self.disk.slot_names().collect();
        if !names.contains(&slot) {
            return Err(refused(format!(
                "there is no slot {slot} that can be written: use one of {}",
                names.join(", ")
            )));
        }
        if reuse::in_use(&self.slots, self.running.as_deref()).contains(&slot) {
            return Err(refused(format!("slot {slot} is the one in use: choose another one")));
        }
        Ok(slot.to_owned())
    }

    /// The slot that can be meant by `activate`: the one that was written last and is not in use.
    fn staged(&self, wanted: Option<&str>) -> Result<String> {
        if wanted.is_some() {
            return self.passive(wanted);
        }
        let in_use = reuse::in_use(&self.slots, self.running.as_deref());
        let others = self.slots.iter().filter(|slot| !in_use.contains(&slot.name.as_str()));
        let newest = others
            .filter_map(|slot| Some((slot.content.as_ref()?.written_at, &slot.name)))
            .max()
            .map(|(_, name)| name.clone());
        newest.ok_or_else(|| refused("no slot holds a complete image that is not in use: stage one first"))
    }
}

pub(super) fn activate(args: &ActivateArgs) -> Result<()> {
    let situation = Situation::look(&args.slot.disk)?;
    let name = situation.staged(args.slot.slot.as_deref())?;
    let slot = situation.disk.slot(&name)?;
    let record = slot.read_record()?;
    let reset = reset::requested(situation.bootloader.esp())?;
    reset::withdraw(situation.bootloader.esp())?;
    tell_of_withdrawn(reset.as_ref());
    forget_live(&name, &record, disk::state_dir(&args.slot.disk, &args.state).as_deref())?;
    situation.bootloader.arm_trial(&slot, &record, args.tries)?;
    tell!("slot {name} ({}) boots next, at most {} times until it is kept", record.version, args.tries);
    Ok(())
}

/// Before a trial: what is tried is what the slot holds, and not what was applied over it once.
pub(super) fn forget_live(slot: &str, record: &SlotRecord, state: Option<&Path>) -> Result<()> {
    let Some(path) = state.filter(|path| path.is_dir()) else { return Ok(()) };
    let state = StateDir::open(path)?;
    let live = state.live_config(slot)?;
    if live.kept.is_some() {
        state.clear_live_kept(slot)?;
    }
    let release = record.release();
    if let Some(kept) = live.kept_for(slot, &release).filter(|kept| kept.setting.release != release) {
        let kept = &kept.setting.release;
        tell!("slot {slot} boots with what came with it: {kept}, applied without a reboot, is forgotten");
    }
    Ok(())
}

fn tell_of_withdrawn(reset: Option<&Reset>) {
    if let Some(reset) = reset {
        tell!(
            "what `evenkeel-agent reset` asked for is withdrawn: slot {} does not begin anew any more",
            reset.slot
        );
    }
}

pub(super) fn commit(args: &SlotArgs) -> Result<()> {
    let situation = Situation::look(&args.disk)?;
    let Some(slot) = args.slot.as_deref().or(situation.current()) else {
        return Err(refused("no slot of this disk is bootable, so none can be kept: activate one first"));
    };
    disk::slot(&situation.disk, slot)?;
    if situation.was_never_booted(slot) {
        return Err(refused(format!(
            "slot {slot} is on trial and was never booted: kept as it is, it would boot for ever and without a way back. \
             Boot it first; `rollback --to {slot}` boots it without a trial"
        )));
    }
    situation.bootloader.commit(slot)?;
    tell!("slot {slot} is kept");
    Ok(())
}

pub(super) fn rollback(args: &RollbackArgs) -> Result<()> {
    let state = disk::state_dir(&args.disk, &args.state);
    let situation = Situation::look_remembering(&args.disk, &args.state)?;
    // Before anything is withdrawn or given up for it.
    args.to.as_deref().map(|name| disk::slot(&situation.disk, name)).transpose()?;
    let reset = reset::requested(situation.bootloader.esp())?;
    reset::withdraw(situation.bootloader.esp())?;
    let wanted = args.to.as_deref();
    if wanted.is_some() {
        tell_of_withdrawn(reset.as_ref());
    }
    let trial = situation.entries.iter().find(|entry| entry.name.tries.is_some());
    let trial = trial.filter(|trial| wanted != Some(trial.name.slot.as_str()));
    if let (Some(trial), None) = (trial, wanted) {
        give_up(&situation, trial, state.as_deref())?;
        tell_of_withdrawn(reset.as_ref());
        tell!("slot {} is not bootable any more; the old slot boots next", trial.name.slot);
        return Ok(());
    }
    if let (Some(reset), None) = (&reset, wanted) {
        tell!("slot {} boots next, and does not begin anew any more", reset.slot);
        return Ok(());
    }
    let current = situation.current().unwrap_or_default();
    let before = reuse::fallback(&situation.slots, current);
    let Some(name) = wanted.or(before.map(|slot| slot.name.as_str())) else {
        return Err(refused(
            "no other slot was kept before and is not known to be damaged, so there is nothing to go back to: `activate` \
             tries a slot out, and `rollback --to NAME` boots one whatever became of it",
        ));
    };
    let slot = situation.disk.slot(name)?;
    let record = slot.read_record()?;
    if let Some(trial) = trial {
        give_up(&situation, trial, state.as_deref())?;
    }
    situation.bootloader.make_default(&slot, &record)?;
    tell!("slot {name} ({}) boots next; reboot to use it", record.version);
    Ok(())
}

/// What is remembered of looks at the slots' bytes. A person goes back also where that cannot be read.
fn checks(state: Option<&Path>) -> SlotChecks {
    let Some(state) = state.filter(|path| path.is_dir()) else { return SlotChecks::default() };
    let checks = StateDir::open(state).and_then(|state| state.slot_checks());
    checks.unwrap_or_else(|error| {
        tell!("which slots are damaged is unknown: {}", with_causes(&error.into()));
        SlotChecks::default()
    })
}

/// Ends a trial. Word of whose wish that was is there before: without it the next boot looks like that of an image which
/// failed, and the image would not be tried here again.
fn give_up(situation: &Situation, trial: &BootEntry, state: Option<&Path>) -> Result<()> {
    let slot = &trial.name.slot;
    // One that used its tries up and does not run has failed already.
    let under_way = situation.runs(slot) || trial.name.tries.is_some_and(|tries| tries.left > 0);
    if let Some(state) = state.filter(|_| under_way) {
        let message = format!("slot {slot} was on trial, and was given up by `evenkeel-agent rollback`");
        let verdict = Verdict { digest: trial.body.digest.clone(), cause: RollbackCause::User, message };
        if let Err(error) = StateDir::open(state).and_then(|state| state.write_verdict(&verdict)) {
            let why = with_causes(&error.into());
            tell!("the agent may hold this against the image, as it cannot be told: {why}");
        }
    }
    Ok(situation.bootloader.disarm(slot)?)
}

pub(super) fn pin(args: &PinArgs) -> Result<()> {
    pins::pin(&writable(args)?, &args.slot)?;
    tell!("slot {} is pinned: no update writes it until `evenkeel-agent unpin {}`", args.slot, args.slot);
    Ok(())
}

pub(super) fn unpin(args: &PinArgs) -> Result<()> {
    pins::unpin(&writable(args)?, &args.slot)?;
    tell!("slot {} is not pinned any more", args.slot);
    Ok(())
}

/// The disk, if updates write the slot at all.
fn writable(args: &PinArgs) -> Result<Disk> {
    let disk = disk::open(&args.disk)?;
    disk::slot(&disk, &args.slot)?;
    let names: Vec<&str> = disk.slot_names().collect();
    if !names.contains(&args.slot.as_str()) {
        return Err(refused(format!("updates write no slot {}: pin one of {}", args.slot, names.join(", "))));
    }
    Ok(disk)
}
