//! `recovery` and `reset`: a machine's last resort, and a machine that begins anew.

use anyhow::Result;
use evenkeel_node_agent_core::{layout::RECOVERY_SLOT, reset::Reset, slot_record::SlotRecord};
use tokio::runtime::Runtime;

use super::{
    disk, image, refused,
    slot::{Situation, forget_live},
    source::Source,
};
use crate::{
    args::{RecoveryArgs, ResetArgs},
    boot,
    disk::{Disk, SlotRegion},
    reset,
    tell::tell,
};

/// As an update's trial has.
const TRIES: u32 = 3;

pub(super) fn recovery(args: &RecoveryArgs) -> Result<()> {
    let situation = Situation::look(&args.disk)?;
    if situation.entries.iter().any(|entry| entry.name.tries.is_some_and(|tries| tries.left > 0)) {
        return Err(refused("a trial is under way: write the recovery slot when it has ended"));
    }
    if situation.runs(RECOVERY_SLOT) {
        return Err(refused("the recovery slot runs: boot another slot to write it"));
    }
    write_recovery(situation.disk, &args.image, &Source::of(&args.source)?, &Runtime::new()?)
}

/// Writes the recovery slot, and makes it what boots when no other slot does. While it is written, there is none.
pub(super) fn write_recovery(disk: Disk, image: &str, source: &Source, runtime: &Runtime) -> Result<()> {
    let request = source.request(disk, RECOVERY_SLOT, image);
    let staged = runtime.block_on(image::stage_with_progress(&request))?;
    let region = request.disk.slot(RECOVERY_SLOT)?;
    boot::open(&request.disk)?.make_last_resort(&region, &staged.record)?;
    tell!("{} ({}) boots when no other slot does", request.image, staged.record.version);
    Ok(())
}

pub(super) fn reset(args: &ResetArgs) -> Result<()> {
    let situation = Situation::look_remembering(&args.disk, &args.state)?;
    // All that can fail comes before anything is lost.
    let (region, record) = match &args.image {
        Some(image) => stage(&situation, image, args)?,
        None => in_use(&situation)?,
    };
    let loader = &situation.bootloader;
    let kept =
        situation.entries.iter().any(|entry| entry.name.slot == region.name && entry.name.tries.is_none());
    let boots_next = args.image.is_none() && kept;
    reset::withdraw(loader.esp())?;
    if boots_next {
        loader.make_default(&region, &record)?;
    } else {
        let state = disk::state_dir(&args.disk, &args.state);
        forget_live(&region.name, &record, state.as_deref())?;
        loader.arm_trial(&region, &record, TRIES)?;
    }
    let (wipe_state, wipe_oem) = (!args.keep_state, args.wipe_oem);
    let request =
        Reset { slot: region.name.clone(), digest: record.release(), wipe_state, wipe_oem, asked: None };
    reset::request(loader.esp(), &request)?;
    tell!(
        "slot {} ({}) boots next and begins anew: {}. Reboot to do it; `evenkeel-agent rollback` takes it back until then",
        region.name,
        record.version,
        request.losses()
    );
    Ok(())
}

fn stage(situation: &Situation, image: &str, args: &ResetArgs) -> Result<(SlotRegion, SlotRecord)> {
    let slot = situation.passive(None)?;
    let request = Source::of(&args.source)?.request(situation.disk.clone(), &slot, image);
    let staged = Runtime::new()?.block_on(image::stage_with_progress(&request))?;
    Ok((request.disk.slot(&request.slot)?, staged.record))
}

/// The slot that runs, or that would boot next.
fn in_use(situation: &Situation) -> Result<(SlotRegion, SlotRecord)> {
    let slot =
        situation.kept().ok_or_else(|| refused("no slot of this disk is kept: name an image to reset to"))?;
    let region = situation.disk.slot(slot)?;
    let record = region.read_record()?;
    Ok((region, record))
}
