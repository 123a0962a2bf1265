//! `disk create` and `slots`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use evenkeel_node_agent_core::{
    layout::{RECOVERY_SLOT, Role},
    reset::Reset,
};
use jiff::Timestamp;

use super::NoSuchSlot;
use crate::{
    args::{DiskArg, Output, SizeArgs, SlotsArgs, StateArg},
    boot,
    disk::{self, Disk, MendedTable, SlotRegion},
    install,
    printable::printable,
    reset,
    run::host,
    slots::{self, BootsWith, Failed, Memory, SlotReport},
    state_dir::StateDir,
    tell::{AnswerError, answer, tell},
};

/// As the agent and the guard have it by default.
pub(super) const STATE_DIR: &str = "/var/lib/evenkeel";

pub(super) fn open(args: &DiskArg) -> Result<Disk> {
    Ok(disk::open_or_find(args.disk.as_deref(), &args.proc)?)
}

/// A slot by its name, as a person gave it.
pub(super) fn slot(disk: &Disk, name: &str) -> Result<SlotRegion> {
    let recovery = disk.partition(Role::Recovery).is_ok().then_some(RECOVERY_SLOT);
    let slots: Vec<&str> = disk.slot_names().chain(recovery).collect();
    if slots.contains(&name) {
        return Ok(disk.slot(name)?);
    }
    Err(NoSuchSlot { wanted: name.to_owned(), there: slots.join(", ") }.into())
}

pub(super) fn create(path: &Path, sizes: SizeArgs, force: bool) -> Result<()> {
    let make = if force { install::replace_disk } else { install::create_disk };
    let disk = make(path, sizes.into())?;
    for partition in disk.partitions() {
        answer!("{:<18} {:>8} MiB  {}", partition.name, partition.length >> 20, partition.part_uuid)?;
    }
    Ok(())
}

/// Says what was written again of a disk's partition table.
pub(super) fn tell_of_table(path: &Path, mended: &MendedTable) {
    let path = path.display();
    mended.lost.iter().for_each(|what| tell!("{path} had lost {what}: written again"));
    if mended.moved {
        tell!("{path} became larger: the second copy of its partition table was written anew, at its end");
    }
}

/// Where the agent's memory of the disk is, if there is any.
pub(super) fn state_dir(disk: &DiskArg, state: &StateArg) -> Option<PathBuf> {
    state.state_dir.clone().or_else(|| disk.disk.is_none().then(|| STATE_DIR.into()))
}

pub(super) fn slots(args: &SlotsArgs) -> Result<()> {
    let disk = open(&args.disk)?;
    let bootloader = boot::open(&disk)?;
    let entries = bootloader.entries()?;
    let running = if args.disk.disk.is_none() { host::running_slot(&args.disk.proc)? } else { None };
    let mut memory = Memory {
        running: running.map(|running| running.name),
        reset: reset::requested(bootloader.esp())?,
        ..Memory::default()
    };
    if let Some(path) = state_dir(&args.disk, &args.state).filter(|path| path.exists()) {
        let state = StateDir::open(&path)?;
        memory.checks = state.slot_checks()?;
        memory.bad_digests = state.journal()?.bad_digests;
        memory.live = state.live_configs(disk.slot_names())?;
    }
    let report = slots::report(&disk, &entries, &memory)?;
    match args.output {
        Output::Json => answer!("{}", serde_json::to_string_pretty(&report)?)?,
        Output::Text => report.iter().try_for_each(|slot| print(slot, memory.reset.as_ref()))?,
    }
    Ok(())
}

/// Characters of a label that are shown.
const TEXT_MAX: usize = 1024;

fn print(slot: &SlotReport, reset: Option<&Reset>) -> Result<(), AnswerError> {
    let boots = match (slot.default, slot.tries_left) {
        (true, Some(left)) => format!("boots next, {left} tries left"),
        (true, None) => "boots next".to_owned(),
        (false, Some(left)) => format!("{left} tries left"),
        (false, None) if slot.bootable => "fallback".to_owned(),
        (false, None) => "not bootable".to_owned(),
    };
    let state = format!("{:?}", slot.state).to_lowercase();
    let image = slot.image.as_deref().unwrap_or("-");
    let runs = if slot.running { "runs, " } else { "" };
    let pinned = if slot.pinned { ", pinned" } else { "" };
    answer!("{:<9} {state:<9} {:<26} {image}", slot.name, format!("{runs}{boots}{pinned}"))?;
    let Some(digest) = &slot.digest else { return Ok(()) };
    answer!("{:10}version {}, {digest}", "", slot.version.as_deref().unwrap_or("-"))?;
    let time = |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| format!("{at:.0}"));
    let plan = slot.plan_id.as_deref().map(|plan| format!(" for plan {plan}")).unwrap_or_default();
    let verified = slot
        .damaged_at
        .map_or_else(|| format!("verified {}", time(slot.verified_at)), |at| format!("damaged at byte {at}"));
    answer!("{:10}written {}{plan}, {verified}", "", time(slot.written_at))?;
    if let Some(words) = slot.boots_with.as_ref().and_then(configured_by) {
        answer!("{:10}{words}", "")?;
    }
    if let Some(reset) = reset.filter(|_| slot.begins_anew.is_some()) {
        answer!("{:10}begins anew at its next boot: {}", "", reset.losses())?;
    }
    if let Some(Failed { cause, count }) = &slot.failed {
        answer!("{:10}failed on this machine {count} times, the last time because of {cause:?}", "")?;
    }
    for (key, value) in &slot.labels {
        answer!("{:10}{}={}", "", printable(key, TEXT_MAX), printable(value, TEXT_MAX))?;
    }
    Ok(())
}

/// Nothing where no cloud-config of the cluster's came with it, and none was applied.
fn configured_by(boots: &BootsWith) -> Option<String> {
    let how = if boots.applied_without_reboot { ", applied without a reboot" } else { "" };
    match &boots.cloud_config_sha256 {
        Some(sha256) => Some(format!("boots with cloud-config {sha256}{how}")),
        None if boots.applied_without_reboot => Some(format!("boots with no cloud-config{how}")),
        None => None,
    }
}
