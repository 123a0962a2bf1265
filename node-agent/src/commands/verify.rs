//! `verify`: whether slots still hold what was written into them.

use std::time::Instant;

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::slot_check::SlotCheck;
use jiff::Timestamp;

use super::disk;
use crate::{args::VerifyArgs, disk::RegionError, slot::scrub, stage::priority, state_dir::StateDir};

/// A slot that does not hold what was written into it.
#[derive(Debug, thiserror::Error)]
#[error(
    "slot {slot} does not hold what was written into it: the block at byte {at} of the slot is another. Stage the image \
     again; if it happens again, replace the disk"
)]
pub struct Damaged {
    slot: String,
    at: u64,
}

pub(super) fn verify(args: &VerifyArgs) -> Result<()> {
    let disk = disk::open(&args.disk)?;
    let state = disk::state_dir(&args.disk, &args.state).map(|path| StateDir::open(&path)).transpose()?;
    let _yielding = priority::yield_the_disk();
    let names: Vec<&str> =
        args.slot.as_deref().map_or_else(|| disk.slot_names().collect(), |name| vec![name]);
    let mut damaged = None;
    for name in names {
        let region = disk.slot(name)?;
        let record = match region.read_record() {
            Err(RegionError::Record { .. }) if args.slot.is_none() => continue,
            record => record?,
        };
        let begun = Instant::now();
        let damaged_at =
            scrub::first_damage(&region, &record).with_context(|| format!("read slot {name}"))?;
        if let Some(state) = &state {
            let check = SlotCheck { digest: record.digest, at: Timestamp::now(), damaged_at };
            let mut checks = state.slot_checks()?;
            checks.insert(name.to_owned(), check);
            state.write_slot_checks(&checks)?;
        }
        if let Some(at) = damaged_at {
            let error = Damaged { slot: name.to_owned(), at };
            eprintln!("evenkeel-agent: {error}");
            damaged.get_or_insert(error);
            continue;
        }
        println!(
            "slot {name} holds what was written: {} MiB of {} read in {} s",
            record.filesystem_length >> 20,
            record.image,
            begun.elapsed().as_secs()
        );
    }
    damaged.map_or(Ok(()), |error| Err(error.into()))
}
