//! `disk create` and `slots`.

use std::path::Path;

use anyhow::Result;

use crate::{
    args::{DiskArg, Output, SizeArgs, SlotsArgs},
    boot::{self, Bootloader as _},
    disk::{self, Disk},
    install,
    slots::{self, SlotReport},
};

pub(super) fn open(args: &DiskArg) -> Result<Disk> {
    Ok(disk::open_or_find(args.disk.as_deref(), &args.proc)?)
}

pub(super) fn create(path: &Path, sizes: SizeArgs) -> Result<()> {
    let disk = install::create_disk(path, sizes.size, sizes.slot_size)?;
    for partition in disk.partitions() {
        println!("{:<18} {:>8} MiB  {}", partition.name, partition.length >> 20, partition.part_uuid);
    }
    Ok(())
}

pub(super) fn slots(args: &SlotsArgs) -> Result<()> {
    let disk = open(&args.disk)?;
    let entries = boot::open(&disk)?.entries()?;
    let report = slots::report(&disk, &entries)?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => report.iter().for_each(print),
    }
    Ok(())
}

fn print(slot: &SlotReport) {
    let boots = match (slot.default, slot.tries_left) {
        (true, Some(left)) => format!("boots next, {left} tries left"),
        (true, None) => "boots next".to_owned(),
        (false, Some(left)) => format!("{left} tries left"),
        (false, None) if slot.bootable => "fallback".to_owned(),
        (false, None) => "not bootable".to_owned(),
    };
    let state = format!("{:?}", slot.state).to_lowercase();
    let image = slot.image.as_deref().unwrap_or("-");
    println!("{:<9} {state:<9} {boots:<26} {image}", slot.name);
}
