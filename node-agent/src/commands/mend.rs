//! `disk mend`.

use anyhow::Result;
use evenkeel_node_agent_core::slot_record::SlotRecord;

use super::{disk, install, refused};
use crate::{
    args::MendArgs,
    disk::Disk,
    mend::{self, BiosCode, bootable, make_boot_partition},
};

pub(super) fn mend(args: &MendArgs) -> Result<()> {
    // One whose table is damaged is found, or named.
    let path = match &args.disk.disk {
        Some(path) => path.clone(),
        None => disk::open(&args.disk)?.path().to_owned(),
    };
    let lost = Disk::mend_table(&path)?;
    for what in &lost {
        eprintln!("{} had lost {what}: written again", path.display());
    }
    let disk = Disk::open(&path)?;
    if let Some(slot) = &args.slot {
        let (record, on_bios) = make_boot_partition(&disk, slot, args.bootloader)?;
        eprintln!("the boot partition was made anew: slot {slot} ({}) boots next", record.version);
        install::tell_of_bios(on_bios, args.bootloader);
        return Ok(());
    }
    let code = mend::restore_bios_code(&disk, !lost.is_empty())?;
    tell_of_code(&disk, &code);
    match mend::boots(&disk) {
        Some(what) if lost.is_empty() && code == BiosCode::AsItWas => {
            eprintln!("{}: nothing to mend, it boots by {what}", path.display());
        }
        Some(what) => eprintln!("{} boots by {what}", path.display()),
        None => return Err(refused(which_slot(&bootable(&disk)?))),
    }
    Ok(())
}

fn tell_of_code(disk: &Disk, code: &BiosCode) {
    let path = disk.path().display();
    match code {
        BiosCode::AsItWas => {}
        BiosCode::Written(slot) => eprintln!("{path}: GRUB for BIOS was written again, from slot {slot}"),
        BiosCode::NowhereToBeHad => eprintln!(
            "{path} has lost a part of GRUB for BIOS, and no slot's image brings it: a machine with BIOS does not boot it \
             until `evenkeel-agent install` is run with an image that does"
        ),
    }
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
