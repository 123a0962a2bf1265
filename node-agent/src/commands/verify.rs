//! `verify`: whether slots still hold what was written into them, and the boot partition what they boot by.

use std::time::Instant;

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::{slot_check::SlotCheck, slot_record::SlotRecord};
use jiff::Timestamp;

use super::disk;
use crate::{
    args::VerifyArgs,
    boot,
    causes::with_causes,
    disk::{Disk, RegionError, SlotRegion},
    slot::scrub::{self, Damage},
    stage::priority,
    state_dir::StateDir,
    tell::{answer, tell},
};

pub(super) fn verify(args: &VerifyArgs) -> Result<()> {
    let disk = disk::open(&args.disk)?;
    let state = disk::state_dir(&args.disk, &args.state).map(|path| StateDir::open(&path)).transpose()?;
    let _yielding = priority::yield_the_disk();
    let names: Vec<&str> =
        args.slot.as_deref().map_or_else(|| disk.slot_names().collect(), |name| vec![name]);
    let mut told = Told::default();
    for name in names {
        let region = disk::slot(&disk, name)?;
        match region.read_record() {
            Ok(record) => {
                if let Some(damage) = look(&region, &record, state.as_ref())? {
                    told.tell(damage);
                }
            }
            Err(RegionError::Record { .. }) if args.slot.is_none() => {}
            Err(RegionError::Unreadable { slot, at, source }) => {
                told.tell(Damage::Unreadable { slot, at, source });
            }
            Err(error) => return Err(error.into()),
        }
    }
    boot_files(&disk, args.slot.as_deref(), &mut told);
    told.outcome()
}

/// Reads a slot, and notes and says how that went.
fn look(region: &SlotRegion, record: &SlotRecord, state: Option<&StateDir>) -> Result<Option<Damage>> {
    let name = &region.name;
    let begun = Instant::now();
    let found = scrub::first_damage(region, record).with_context(|| format!("read slot {name}"))?;
    if let Some(state) = state {
        let damaged_at = found.as_ref().map(Damage::at);
        let check = SlotCheck { digest: record.release(), at: Timestamp::now(), damaged_at };
        let mut checks = state.slot_checks()?;
        checks.insert(name.clone(), check);
        state.write_slot_checks(&checks)?;
    }
    if found.is_none() {
        answer!(
            "slot {name} holds what was written: {} MiB of {} read in {} s",
            record.filesystem_length >> 20,
            record.image,
            begun.elapsed().as_secs()
        )?;
    }
    Ok(found)
}

/// What the slots boot by, or the one that was named.
fn boot_files(disk: &Disk, slot: Option<&str>, told: &mut Told) {
    let damaged = boot::open(disk).and_then(|loader| boot::damaged_files(disk, &*loader));
    match damaged {
        Ok(damaged) => {
            for file in damaged.into_iter().filter(|file| slot.is_none_or(|slot| file.slot == slot)) {
                let advice =
                    "a file that boots a slot is damaged, and `evenkeel-agent disk mend` writes it again";
                told.tell(anyhow::Error::from(file).context(advice));
            }
        }
        Err(error) => {
            told.tell(anyhow::Error::from(error).context("compare the boot partition with the slots"));
        }
    }
}

/// What was found. Each is told, the last one as the reason why the command fails.
#[derive(Default)]
struct Told(Option<anyhow::Error>);

impl Told {
    fn tell(&mut self, error: impl Into<anyhow::Error>) {
        if let Some(before) = self.0.replace(error.into()) {
            tell!("evenkeel-agent: {}", with_causes(&before));
        }
    }

    fn outcome(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
