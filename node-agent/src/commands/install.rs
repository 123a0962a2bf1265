//! `install`: an image becomes what a disk boots. What the disk booted before is left as it is, and boots until then.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::{
    efi_program::Unsigned,
    layout::{self, MIB, Role},
    reuse,
    slot_check::SlotChecks,
    slot_record::SlotRecord,
};
use tokio::runtime::Runtime;

use super::{image, recovery, refused, source::Source};
use crate::{
    args::{InstallArgs, SizeArgs},
    boot::{self, Loader},
    disk::{Disk, DiskError, NoBiosPlace, SlotRegion},
    esp,
    install::{self, OnBios},
    mend,
    slot::scrub,
    slots,
    tell::tell,
};

/// A slot that every disk of ours has.
const FIRST_SLOT: &str = "a";

pub(super) fn install(args: &InstallArgs) -> Result<()> {
    let cloud_config = args.cloud_config.as_deref().map(read_cloud_config).transpose()?;
    let runtime = Runtime::new()?;
    let source = Source::of(&args.source)?;
    // An image that cannot be had must not cost a disk.
    let begins_anew = !is_laid_out(args);
    let digest = runtime.block_on(image::find(&args.image, &source, begins_anew))?;
    if let Some(image) = &args.recovery_image {
        runtime.block_on(image::find(image, &source, begins_anew))?;
    }
    let disk = open_or_create(args)?;
    let loader = install::loader_for(&disk, args.bootloader)?;
    let (slot, record) = match there_already(&disk, &digest)? {
        Some(there) => there,
        None => stage(&disk, &digest, args, &source, &runtime)?,
    };
    if let Some(text) = &cloud_config {
        // An image that cannot be made bootable costs nothing.
        install::loader_program(&slot, loader)?;
        install::write_cloud_config(&disk, text)?;
    }
    let on_bios = install::make_bootable_with(&disk, &slot, &record, loader)?;
    tell!("{} boots {} ({}) from slot {}", args.disk.display(), args.image, record.version, slot.name);
    tell_of_bios(on_bios, loader);
    tell_of_secure_boot(&disk)?;
    match &args.recovery_image {
        Some(image) => recovery::write_recovery(disk, image, &source, &runtime),
        None => Ok(mend::restore_last_resort(&disk)?),
    }
}

/// The slot that the disk boots, if it holds the image, every byte of it.
fn there_already(disk: &Disk, digest: &str) -> Result<Option<(SlotRegion, SlotRecord)>> {
    let slots = slots::facts(disk, &boot::open(disk)?.entries()?, &SlotChecks::default())?;
    let Some(kept) = reuse::kept(&slots).filter(|kept| kept.digest() == Some(digest)) else {
        return Ok(None);
    };
    let slot = disk.slot(&kept.name)?;
    let record = slot.read_record()?;
    let damage = scrub::first_damage(&slot, &record).with_context(|| format!("read slot {}", slot.name))?;
    match &damage {
        Some(damage) => tell!("{damage}: the image goes into another slot"),
        None => tell!("slot {} holds the image already, and is what the disk boots", slot.name),
    }
    Ok(damage.is_none().then_some((slot, record)))
}

/// Writes the image into a slot that the disk can boot without.
fn stage(
    disk: &Disk,
    digest: &str,
    args: &InstallArgs,
    source: &Source,
    runtime: &Runtime,
) -> Result<(SlotRegion, SlotRecord)> {
    let slots = slots::facts(disk, &boot::open(disk)?.entries()?, &SlotChecks::default())?;
    let chosen = reuse::choose(&slots, None, Some(digest)).map_err(|error| refused(error.to_string()))?;
    let request = source.request(disk.clone(), &chosen.name, &args.image);
    let staged = runtime.block_on(image::stage_with_progress(&request))?;
    Ok((disk.slot(&chosen.name)?, staged.record))
}

/// Says whether a machine with BIOS boots the disk, where the loader could.
pub(super) fn tell_of_bios(on_bios: OnBios, loader: Loader) {
    if loader != Loader::Grub {
        return;
    }
    match on_bios {
        OnBios::Boots => tell!("machines with UEFI and with BIOS boot it"),
        OnBios::NoLoader => tell!(
            "nothing was written for machines with BIOS: the image has no boot.img and core.img in /usr/lib/grub/i386-pc"
        ),
        OnBios::NoPlace(NoBiosPlace::Blocks) => {
            tell!("machines with BIOS do not boot it: no BIOS boots a disk with blocks of 4096 bytes");
        }
        OnBios::NoPlace(NoBiosPlace::Partition) => tell!(
            "machines with BIOS do not boot it: it has no partition evenkeel-bios, which disks of this version have \
             (`install --force` makes the disk anew)"
        ),
    }
}

/// Says whether a machine with Secure Boot on boots the disk.
pub(super) fn tell_of_secure_boot(disk: &Disk) -> Result<()> {
    let unsigned = boot::unsigned(&*boot::open(disk)?)?;
    if unsigned == Unsigned::default() {
        tell!(
            "machines with Secure Boot on boot it, if they have the keys of those who signed what boots it"
        );
    } else {
        let what = if unsigned.loaders.is_empty() { "a kernel on it" } else { "its boot loader" };
        tell!("machines with Secure Boot on do not boot it: {what} has no signature");
    }
    Ok(())
}

fn read_cloud_config(path: &Path) -> Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("read the cloud-config {}", path.display()))?;
    super::cloud_config::understood(path, &text)?;
    Ok(text)
}

/// Whether the disk may hold layers that the registry need not have.
fn is_laid_out(args: &InstallArgs) -> bool {
    let ours = |path| Disk::open(path).is_ok_and(|disk| disk.slot(FIRST_SLOT).is_ok());
    !args.force && !Disk::is_unfinished(&args.disk) && ours(&args.disk)
}

/// A disk with our layout is used as it is, unless it was never finished; one with somebody else's is never touched
/// without being told to.
fn open_or_create(args: &InstallArgs) -> Result<Disk> {
    let (path, sizes) = (&args.disk, args.sizes.into());
    if args.force {
        return Ok(install::make_disk(path, sizes, true)?);
    }
    let empty_file = fs::metadata(path).map_or(true, |found| found.is_file() && found.len() == 0);
    if empty_file || Disk::is_unfinished(path) {
        return Ok(install::make_disk(path, sizes, false)?);
    }
    match Disk::open(path) {
        Err(DiskError::NoTable { .. }) => Ok(install::make_disk(path, sizes, false)?),
        // A kernel that saw only the copy that is damaged, or did not look for a table when the disk came.
        Err(DiskError::NoNode { .. }) if Disk::mend_table(path).is_ok() => brought_back(path, args.sizes),
        Err(error) => Err(error.into()),
        Ok(disk) if disk.slot(FIRST_SLOT).is_err() => Err(refused(format!(
            "{} has partitions that are not Evenkeel's: if nothing on it is needed, say --force",
            path.display()
        ))),
        Ok(_) => brought_back(path, args.sizes),
    }
}

/// A disk of ours that has lost what boots it, as far as the image that is installed needs it.
fn brought_back(path: &Path, sizes: SizeArgs) -> Result<Disk> {
    let disk = Disk::open_alone(path)?;
    keeps_sizes(&disk, sizes)?;
    let path = disk.path().display();
    super::disk::tell_of_table(disk.path(), &Disk::mend_table(disk.path())?);
    if mend::format_unreadable(&disk)? {
        tell!("{path} has a boot partition that cannot be read: it is made anew");
    }
    // An installation that was cut off before this one is to leave nothing.
    if let Err(error) = esp::reclaim(&disk) {
        tell!("what it left on the boot partition stays: {:#}", anyhow::Error::from(error));
    }
    Ok(disk)
}

/// Fails if a disk that is laid out already is so in another way than is asked for.
fn keeps_sizes(disk: &Disk, sizes: SizeArgs) -> Result<()> {
    let (slots, slot) = (disk.slot_names().count(), disk.slot(FIRST_SLOT)?.length);
    let state = disk.partition(Role::State)?;
    let end = state.disk_offset + state.length;
    let ends_there = |size: u64| {
        let places = layout::layout(size, Some(slot), u8::try_from(slots).unwrap_or(u8::MAX));
        places.is_ok_and(|places| places.last().is_some_and(|last| last.offset + last.length == end))
    };
    let length = disk.length()?;
    let mut others = Vec::new();
    if sizes.slots.is_some_and(|wanted| usize::from(wanted) != slots) {
        others.push(format!("--slots (it has {slots})"));
    }
    if sizes.slot_size.is_some_and(|wanted| wanted / MIB * MIB != slot) {
        others.push(format!("--slot-size (its slots have {} MiB)", slot / MIB));
    }
    if sizes.size.is_some_and(|wanted| wanted < length && !ends_there(wanted)) {
        others.push(format!("--size (its partitions end after {} MiB)", end / MIB));
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "{} has Evenkeel's layout already, and keeps it: leave out {}, or say --force, which makes the disk anew, so that \
         what is on it is lost",
        disk.path().display(),
        others.join(" and ")
    )))
}
