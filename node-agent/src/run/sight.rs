//! What is seen on the machine: the slot that runs, the slots' records, the boot entries.
//!
//! Looking costs reads of the disk and a mount of the boot partition, so that what was seen is kept until something may
//! have changed it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use evenkeel_node_agent_core::{
    journal::{ChecksPassed, Verdict},
    live_config::LiveConfig,
    machine::{Facts, RunningSlot, SlotFact},
    reset::Reset,
    slot_check::SlotChecks,
};
use jiff::Timestamp;

use super::{act::ActError, host};
use crate::{
    boot,
    cloud_config::{is_applied, live::is_supported},
    disk,
    reset::{self, ResetError},
    slots,
};

/// For how long what was seen holds, when nobody says that it may have changed.
const HOLDS: Duration = Duration::from_mins(1);

/// The machine, as it is seen.
pub struct Sight {
    proc: PathBuf,
    disk: Option<PathBuf>,
    seen: Option<(Instant, Seen)>,
}

/// What costs a look at the disk.
#[derive(Clone, Debug, Default)]
struct Seen {
    running: Option<RunningSlot>,
    slots: Vec<SlotFact>,
    recovery: Option<SlotFact>,
    reset_requested: Option<Reset>,
    reset_done: Option<String>,
}

impl Sight {
    /// Looks at `disk`, or at the disk that the machine runs from.
    pub fn new(proc: PathBuf, disk: Option<PathBuf>) -> Self {
        Self { proc, disk, seen: None }
    }

    /// What was seen may not be true any more.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// The facts.
    pub fn look(
        &mut self,
        verdict: Option<Verdict>,
        passed: Option<&ChecksPassed>,
        checks: &SlotChecks,
        live: LiveConfig,
    ) -> Result<Facts, ActError> {
        let Seen { running, slots, recovery, reset_requested, reset_done } = self.machine(checks)?;
        let boot_id = running.as_ref().map(|running| running.boot_id.as_str());
        let passed = boot_id.is_some() && boot_id == passed.map(|passed| passed.boot_id.as_str());
        // The host has not passed before it is configured as it should be.
        let configured = running.as_ref().is_none_or(|running| is_applied(&self.proc, live.release(running)));
        let applied = running.as_ref().is_some_and(|running| live.is_on_trial(running));
        let host_checks_passed = (passed || applied) && configured;
        let live = LiveConfig { supported: is_supported(&self.proc), ..live };
        Ok(Facts {
            running,
            slots,
            recovery,
            reset_requested,
            reset_done,
            live,
            verdict,
            host_checks_passed,
            now: Timestamp::now(),
        })
    }

    fn machine(&mut self, checks: &SlotChecks) -> Result<Seen, ActError> {
        if let Some((at, seen)) = &self.seen
            && at.elapsed() < HOLDS
        {
            return Ok(seen.clone());
        }
        let seen = match host::running_slot(&self.proc)? {
            Some(running) => self.disk(running, checks)?,
            // A host that does not run from a slot is left alone, whatever disks it has.
            None => Seen::default(),
        };
        self.seen = Some((Instant::now(), seen.clone()));
        Ok(seen)
    }

    fn disk(&self, running: RunningSlot, checks: &SlotChecks) -> Result<Seen, ActError> {
        let disk = disk::open_or_find(self.disk.as_deref(), &self.proc)?;
        let bootloader = boot::open(&disk)?;
        let (entries, esp) = (bootloader.entries()?, bootloader.esp());
        let reset_requested = readable(reset::requested(esp));
        let reset_done = readable(reset::done(esp)).and_then(|done| done.asked).map(|asked| asked.id);
        // The boot partition may be mounted, and others may want to write meanwhile.
        drop(bootloader);
        let slots = slots::facts(&disk, &entries, checks)?;
        let recovery = slots::recovery(&disk, &entries, checks)?;
        Ok(Seen { running: Some(running), slots, recovery, reset_requested, reset_done })
    }
}

/// A request that cannot be read is none: an update, or the way back from one, does not wait for it.
fn readable(found: Result<Option<Reset>, ResetError>) -> Option<Reset> {
    found.inspect_err(|error| tracing::warn!(%error, "a request to begin anew cannot be read")).ok().flatten()
}
