//! `verify`: whether slots still hold what was written into them.

use std::time::Instant;

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::slot_check::SlotCheck;
use jiff::Timestamp;

use super::disk;
use crate::{
    args::VerifyArgs,
    disk::RegionError,
    slot::scrub::{self, Damage},
    stage::priority,
    state_dir::StateDir,
};

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
            Err(RegionError::Unreadable { slot, at, source }) => {
                tell(Damage::Unreadable { slot, at, source }, &mut damaged);
                continue;
            }
            record => record?,
        };
        let begun = Instant::now();
        let found = scrub::first_damage(&region, &record).with_context(|| format!("read slot {name}"))?;
        if let Some(state) = &state {
            let damaged_at = found.as_ref().map(Damage::at);
            let check = SlotCheck { digest: record.release(), at: Timestamp::now(), damaged_at };
            let mut checks = state.slot_checks()?;
            checks.insert(name.to_owned(), check);
            state.write_slot_checks(&checks)?;
        }
        if let Some(damage) = found {
            tell(damage, &mut damaged);
            continue;
        }
        println!(
            "slot {name} holds what was written: {} MiB of {} read in {} s",
            record.filesystem_length >> 20,
            record.image,
            begun.elapsed().as_secs()
        );
    }
    damaged.map_or(Ok(()), Err)
}

/// Each damage is told; the first is why the command fails.
fn tell(damage: Damage, first: &mut Option<anyhow::Error>) {
    let error = anyhow::Error::from(damage);
    eprintln!("evenkeel-agent: {error:#}");
    first.get_or_insert(error);
}
