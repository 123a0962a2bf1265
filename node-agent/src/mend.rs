//! A disk whose slots are whole and that does not boot: what the boot partition held is made again from them.

use std::collections::BTreeSet;

use evenkeel_node_agent_core::{bios_boot::BiosState, layout::RECOVERY_SLOT, slot_record::SlotRecord};

use crate::{
    boot::{self, BootError, FileDamage, Loader},
    disk::{Disk, DiskError, RegionError, SlotRegion},
    esp,
    install::{self, InstallError, OnBios},
};

/// Why the boot partition could not be made again.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// A slot cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The slot that was named holds nothing that boots.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The boot partition could not be written.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// What boots a disk, in words; `None` when nothing does.
pub fn boots(disk: &Disk) -> Option<String> {
    let loader = boot::installed(disk).ok()??.name();
    let entries = boot::open(disk).ok()?.entries().ok()?;
    let mut slots: Vec<&str> = entries.iter().map(|entry| entry.name.slot.as_str()).collect();
    slots.sort_unstable();
    (!slots.is_empty()).then(|| format!("{loader} with entries for {}", slots.join(", ")))
}

/// The slots that could boot: those that hold an image.
pub fn bootable(disk: &Disk) -> Result<Vec<(String, SlotRecord)>, DiskError> {
    let mut found = Vec::new();
    for name in disk.slot_names() {
        if let Ok(record) = disk.slot(name)?.read_record() {
            found.push((name.to_owned(), record));
        }
    }
    Ok(found)
}

/// The loader of a boot partition that is made anew, as far as it can be told what it was.
pub fn loader_for(disk: &Disk, slot: &str) -> Result<Loader, MendError> {
    if let Ok(Some(loader)) = boot::installed(disk) {
        return Ok(loader);
    }
    let region = disk.slot(slot)?;
    let starts_on_bios = || disk.bios_state().is_ok_and(|state| state != BiosState::Absent);
    let brings_systemd_boot = || install::loader_program(&region, Loader::SystemdBoot).is_ok();
    let grub = install::loader_program(&region, Loader::Grub).is_ok_and(|program| {
        // Whoever puts shim into an image means to start GRUB by it.
        program.shim.is_some() || starts_on_bios() || !brings_systemd_boot()
    });
    Ok(if grub { Loader::Grub } else { Loader::SystemdBoot })
}

/// Formats the boot partition, and writes onto it what boots the slot, and the recovery slot if that holds an image.
/// Everything else on it is lost.
pub fn make_boot_partition(
    disk: &Disk,
    slot: &str,
    loader: Loader,
) -> Result<(SlotRecord, OnBios), MendError> {
    // All that can fail comes before anything is lost.
    let (region, record) = content(disk, slot)?;
    install::loader_program(&region, loader)?;
    install::bios_code(&region, loader)?;
    esp::format(disk).map_err(InstallError::from)?;
    let on_bios = install::make_bootable_with(disk, &region, &record, loader)?;
    restore_last_resort(disk)?;
    Ok((record, on_bios))
}

/// What became of GRUB for BIOS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BiosCode {
    /// Nothing was to be done.
    AsItWas,
    /// Both parts were written again, from this slot's image.
    Written(String),
    /// A part of it is lost, and no slot's image brings it.
    NowhereToBeHad,
}

/// Writes GRUB for BIOS again, by the first slot whose image brings it, where a disk that boots by GRUB has lost a part of it;
/// all of it may be lost where the disk has lost something of its partition table.
pub fn restore_bios_code(disk: &Disk, table_was_lost: bool) -> Result<BiosCode, MendError> {
    // Whose a boot partition is that cannot be read, a person says when it is made anew.
    let is_grub = boot::installed(disk).is_ok_and(|loader| loader == Some(Loader::Grub));
    if !is_grub {
        return Ok(BiosCode::AsItWas);
    }
    let state = disk.bios_state()?;
    if state == BiosState::Whole || (state == BiosState::Absent && !table_was_lost) {
        return Ok(BiosCode::AsItWas);
    }
    for (name, _) in bootable(disk)? {
        if let Some(code) = install::bios_code(&disk.slot(&name)?, Loader::Grub)? {
            let on_bios = install::write_bios_code(disk, &code)?;
            return Ok(if on_bios == OnBios::Boots { BiosCode::Written(name) } else { BiosCode::AsItWas });
        }
    }
    Ok(if state == BiosState::Absent { BiosCode::AsItWas } else { BiosCode::NowhereToBeHad })
}

/// What became of kernels and initrds that were not what the slots hold.
#[derive(Debug, Default)]
pub struct BootFiles {
    /// Those that were written again.
    pub written: Vec<FileDamage>,
    /// Those that are as they were.
    pub left: Vec<FileDamage>,
    /// Why they are.
    pub why: Option<BootError>,
}

/// Writes kernels and initrds again by which slots boot and that are lost or damaged, from the slots. Entries stay as
/// they are, and so what boots next.
pub fn restore_boot_files(disk: &Disk) -> Result<BootFiles, MendError> {
    // One without entries that can be read boots nothing, and a person says from which slot it is made anew.
    let Ok(loader) = boot::open(disk) else { return Ok(BootFiles::default()) };
    let Ok(damaged) = boot::damaged_files(disk, &*loader) else { return Ok(BootFiles::default()) };
    let slots: BTreeSet<&str> = damaged.iter().map(|file| file.slot.as_str()).collect();
    let mut why = None;
    for slot in slots {
        let (region, record) = content(disk, slot)?;
        if let Err(error) = loader.place_files(&region, &record) {
            why.get_or_insert(error);
        }
    }
    // What one slot could not give another one may have given.
    let left = boot::damaged_files(disk, &*loader).map_err(InstallError::from)?;
    let is_left = |file: &FileDamage| left.iter().any(|l| l.slot == file.slot && l.path == file.path);
    let written = damaged.into_iter().filter(|file| !is_left(file)).collect();
    Ok(BootFiles { written, left, why })
}

/// Formats a boot partition that cannot be read, so that an installation can go on. Whether it had to.
pub fn format_unreadable(disk: &Disk) -> Result<bool, MendError> {
    let unreadable = boot::installed(disk).is_err();
    if unreadable {
        esp::format(disk).map_err(InstallError::from)?;
    }
    Ok(unreadable)
}

/// Lets a recovery slot that holds an image and has no boot entry boot when no other slot does.
pub fn restore_last_resort(disk: &Disk) -> Result<(), MendError> {
    let Ok((region, record)) = content(disk, RECOVERY_SLOT) else { return Ok(()) };
    let loader = boot::open(disk).map_err(InstallError::from)?;
    let entries = loader.entries().map_err(InstallError::from)?;
    if entries.iter().all(|entry| entry.name.slot != RECOVERY_SLOT) {
        loader.make_last_resort(&region, &record).map_err(InstallError::from)?;
    }
    Ok(())
}

fn content(disk: &Disk, slot: &str) -> Result<(SlotRegion, SlotRecord), MendError> {
    let region = disk.slot(slot)?;
    let record = region.read_record()?;
    Ok((region, record))
}
