//! The update machine: from what is wanted and what was seen to the next single action.
//!
//! The shell calls [`resume()`] once per turn to make the journal agree with the facts, then [`next`] for the action;
//! it stores the journal, does the action, and reports the outcome with [`record`]. Any of these may be
//! repeated after a crash.

pub mod facts;
pub mod live;
pub mod orders;
pub mod outcome;
pub mod recovery;
pub mod reset;
pub mod resume;
pub mod status;

pub use facts::{EntryFact, Facts, Orders, RunningSlot, SlotContent, SlotFact};
pub use live::{LiveAction, order_id};
pub use orders::next;
pub use outcome::{Outcome, record};
pub use resume::resume;
pub use status::{HOST_AGAIN, REPORT_WITHIN, may_wait, report, status, waits_for_host};

use crate::reset::Reset;

/// Boots that a trial gets before the boot loader gives it up. Three, so that an accidental power-off in the trial
/// does not use up the only one.
pub const TRIAL_TRIES: u32 = 3;

/// What the shell does next. Each is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Wait,
    /// Nothing until this time, in seconds since 1970.
    WaitUntil(i64),
    /// Write `image` into `slot`, verify it, and put its kernel and initrd on the ESP.
    Stage {
        /// The slot to write.
        slot: String,
        /// The image, by digest.
        image: String,
    },
    /// Write `image` into the recovery slot, verify it, and make it what boots when no other slot does.
    WriteRecovery {
        /// The image, by digest.
        image: String,
    },
    /// Write the entry that boots `slot` on trial.
    Activate {
        /// The slot to try.
        slot: String,
    },
    /// Ask the initrd to let the machine begin anew, and init to reboot.
    BeginAnew(Reset),
    /// Take back what the initrd was asked.
    WithdrawReset,
    /// Ask the host's init to reboot.
    Reboot,
    /// Make `slot`, which runs on trial, the default.
    Commit {
        /// The slot to keep.
        slot: String,
    },
    /// Make the trial of `slot` unbootable.
    Disarm {
        /// The slot on trial.
        slot: String,
    },
    /// Make the trial of `slot` unbootable, then reboot into the old slot.
    RevertTrial {
        /// The slot on trial.
        slot: String,
    },
    /// Something about a cloud-config that is applied without a reboot.
    Live(LiveAction),
    /// Make the committed `from` give way to `to`, then reboot.
    RevertCommitted {
        /// The slot that runs.
        from: String,
        /// The slot to go back to.
        to: String,
    },
}

impl Action {
    /// Whether it tells of itself soon enough, and the machine is still there then: what is over in a moment by what came of it,
    /// staging by how far it is. That it began is not reported.
    #[must_use]
    pub fn tells_of_itself(&self) -> bool {
        matches!(
            self,
            Self::Stage { .. }
                | Self::Activate { .. }
                | Self::Commit { .. }
                | Self::Disarm { .. }
                | Self::WithdrawReset
                | Self::Live(_)
        )
    }
}
