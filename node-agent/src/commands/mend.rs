//! `disk mend`.

use anyhow::Result;
use evenkeel_node_agent_core::slot_record::SlotRecord;

use super::{disk, install, refused};
use crate::{
    args::MendArgs,
    disk::{Claim, Disk},
    mend::{self, BiosCode, BootFiles, bootable, make_boot_partition},
    tell::tell,
};

pub(super) fn mend(args: &MendArgs) -> Result<()> {
    // One whose table is damaged is found, or named.
    let path = match &args.disk.disk {
        Some(path) => path.clone(),
        None => disk::open(&args.disk)?.path().to_owned(),
    };
    let _claim = Claim::take(&path)?;
    let table = Disk::mend_table(&path)?;
    disk::tell_of_table(&path, &table);
    let disk = Disk::open(&path)?;
    if let Some(slot) = &args.slot {
        disk::slot(&disk, slot)?;
        let loader = args.bootloader.map_or_else(|| mend::loader_for(&disk, slot), Ok)?;
        let (record, on_bios) = make_boot_partition(&disk, slot, loader)?;
        let version = record.version;
        tell!("the boot partition was made anew, with {}: slot {slot} ({version}) boots next", loader.name());
        install::tell_of_bios(on_bios, loader);
        install::tell_of_secure_boot(&disk)?;
        return Ok(());
    }
    let code = mend::restore_bios_code(&disk, !table.lost.is_empty())?;
    tell_of_code(&disk, &code);
    let files = mend::restore_boot_files(&disk)?;
    files.written.iter().for_each(|file| tell!("{file}: written again, from the slot"));
    let files_were_whole = files.written.is_empty();
    all_written(files)?;
    match mend::boots(&disk) {
        Some(what) if table.was_whole() && code == BiosCode::AsItWas && files_were_whole => {
            tell!("{}: nothing to mend, it boots by {what}", path.display());
        }
        Some(what) => tell!("{} boots by {what}", path.display()),
        None => return Err(refused(which_slot(&bootable(&disk)?))),
    }
    Ok(())
}

fn tell_of_code(disk: &Disk, code: &BiosCode) {
    let path = disk.path().display();
    match code {
        BiosCode::AsItWas => {}
        BiosCode::Written(slot) => tell!("{path}: GRUB for BIOS was written again, from slot {slot}"),
        BiosCode::NowhereToBeHad => tell!(
            "{path} has lost a part of GRUB for BIOS, and no slot's image brings it: a machine with BIOS does not boot it \
             until `evenkeel-agent install` is run with an image that does"
        ),
    }
}

/// Fails with the first file that could not be written again.
fn all_written(BootFiles { left, why, .. }: BootFiles) -> Result<()> {
    let mut left = left.into_iter();
    let Some(first) = left.next() else { return Ok(()) };
    left.for_each(|file| tell!("{file}, and could not be written again"));
    Err(why.map_or_else(
        || {
            let advice = format!(
                "the boot entry of slot {0} is for another file, or another slot, than its own: `evenkeel-agent rollback --to {0}` writes \
                 it anew",
                first.slot
            );
            anyhow::Error::from(first).context(advice)
        },
        |why| anyhow::Error::from(why).context("write again by what slots boot"),
    ))
}

fn which_slot(slots: &[(String, SlotRecord)]) -> String {
    let known = |(name, record): &(String, SlotRecord)| {
        format!("{name} ({}, version {}, written {:.0})", record.image, record.version, record.written_at)
    };
    let slots: Vec<String> = slots.iter().map(known).collect();
    if slots.is_empty() {
        return "the boot partition boots nothing, and no slot holds an image: `evenkeel-agent install` writes one"
            .to_owned();
    }
    format!(
        "the boot partition boots nothing. `evenkeel-agent disk mend --slot NAME` makes it anew, so that what else is on \
         it is lost; these slots hold an image: {}",
        slots.join(", ")
    )
}
