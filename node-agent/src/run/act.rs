//! The machine's actions but staging, each safe to repeat.

use std::path::PathBuf;

use evenkeel_crds::{cloud_config::OrderedCloudConfig, node_plan::PlanError};
use evenkeel_node_agent_core::{
    journal::{Attempt, TrialOrder},
    machine::{Action, TRIAL_TRIES},
};

use super::{
    host::{self, HostError},
    live,
};
use crate::{
    boot::{self, BootError},
    disk::{self, Disk, DiskError, RegionError},
    plan_error::plan_error,
    reboot::{self, RebootError},
    reset::{self, ResetError},
    slots::SlotsError,
    state_dir::{StateDir, StateError},
};

/// Seconds from the trial's boot to its end, when the order does not say.
pub(super) const COMMIT_DEADLINE_SECONDS: i64 = 1800;

/// What actions need.
pub(super) struct Tools {
    pub proc: PathBuf,
    pub disk: Option<PathBuf>,
    pub state: StateDir,
    pub reboot_command: Option<PathBuf>,
    /// Seconds from the trial's boot until it must be kept.
    pub commit_deadline: Option<i64>,
    pub attempt: Option<Attempt>,
    /// `host:port` of the API server.
    pub api_server: Option<String>,
    /// The cloud-config of the order.
    pub cloud_config: Option<OrderedCloudConfig>,
}

/// Why a look or an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The running system is unknown.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The slots cannot be looked at.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// A slot cannot be read, or holds nothing.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The boot partition.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A request on the boot partition.
    #[error(transparent)]
    Reset(#[from] ResetError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The reboot.
    #[error(transparent)]
    Reboot(#[from] RebootError),
    /// It was to be kept, and is on trial no longer.
    #[error("the host gives the cloud-config up: what it says of that comes with its next report")]
    GivenUp,
    /// The slot holds another image than the one that was approved.
    #[error("slot {slot} holds {found} and not {wanted}: stage the image again")]
    OtherImage {
        /// The slot.
        slot: String,
        /// Digest of what is there.
        found: String,
        /// Digest of what was approved.
        wanted: String,
    },
}

impl ActError {
    /// The kind of error, in the form of a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(_) => "HostUnreadable",
            Self::Disk(_) => "DiskFailed",
            Self::Region(_) | Self::Slots(_) => "SlotUnreadable",
            Self::Boot(error) => error.reason(),
            Self::Reset(error) if error.is_read_only() => "EspReadOnly",
            Self::Reset(_) => "EspUnavailable",
            Self::State(_) => "StateUnavailable",
            Self::Reboot(_) => "RebootFailed",
            Self::GivenUp => "GivenUp",
            Self::OtherImage { .. } => "OtherImage",
        }
    }

    /// Whether the same may work later without a person's help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Boot(error) => error.retryable(),
            Self::Region(error) => matches!(error, RegionError::Io { .. } | RegionError::Unreadable { .. }),
            Self::Reset(error) => !error.is_read_only(),
            Self::OtherImage { .. } => false,
            _ => true,
        }
    }

    /// The error as the plan's status tells it.
    pub fn plan_error(self) -> PlanError {
        plan_error(self.reason(), self.retryable(), &self.into())
    }
}

/// Does an action.
pub(super) fn act(tools: &Tools, action: &Action) -> Result<(), ActError> {
    let disk = || disk::open_or_find(tools.disk.as_deref(), &tools.proc);
    match action {
        Action::Wait | Action::WaitUntil(_) | Action::Stage { .. } | Action::WriteRecovery { .. } => Ok(()),
        Action::Activate { slot } => activate(tools, &disk()?, slot),
        Action::Commit { slot } => Ok(boot::open(&disk()?)?.commit(slot)?),
        Action::Disarm { slot } => Ok(boot::open(&disk()?)?.disarm(slot)?),
        Action::BeginAnew(request) => {
            reset::request(boot::open(&disk()?)?.esp(), request)?;
            reboot(tools)
        }
        Action::WithdrawReset => Ok(reset::withdraw(boot::open(&disk()?)?.esp())?),
        Action::Reboot => reboot(tools),
        Action::Live(action) => live::act(tools, &disk()?, *action),
        Action::RevertTrial { slot } => {
            boot::open(&disk()?)?.disarm(slot)?;
            reboot(tools)
        }
        Action::RevertCommitted { from: _, to } => {
            let disk = disk()?;
            let region = disk.slot(to)?;
            boot::open(&disk)?.make_default(&region, &region.read_record()?)?;
            reboot(tools)
        }
    }
}

/// The trial's order is there before the trial can be booted, and no old verdict speaks of it.
fn activate(tools: &Tools, disk: &Disk, slot: &str) -> Result<(), ActError> {
    let region = disk.slot(slot)?;
    let record = region.read_record()?;
    if let Some(attempt) = &tools.attempt {
        if record.release() != attempt.digest {
            let (found, wanted) = (record.release(), attempt.digest.clone());
            return Err(ActError::OtherImage { slot: slot.to_owned(), found, wanted });
        }
        let running = host::running_slot(&tools.proc)?;
        let deadline = tools.commit_deadline.unwrap_or(COMMIT_DEADLINE_SECONDS);
        tools.state.clear_verdict()?;
        // What is tried is what the slot holds, and not what was applied over it once.
        tools.state.clear_live_kept(slot)?;
        tools.state.write_trial(&TrialOrder {
            plan_id: attempt.plan_id.clone(),
            digest: attempt.digest.clone(),
            slot: slot.to_owned(),
            deadline_seconds: u64::try_from(deadline).unwrap_or_default(),
            boot_id_before: running.map(|running| running.boot_id).unwrap_or_default(),
            api_server: tools.api_server.clone(),
        })?;
    }
    let bootloader = boot::open(disk)?;
    // What a person asked for is not what this update is for.
    reset::withdraw(bootloader.esp())?;
    Ok(bootloader.arm_trial(&region, &record, TRIAL_TRIES)?)
}

fn reboot(tools: &Tools) -> Result<(), ActError> {
    Ok(reboot::reboot(tools.reboot_command.as_deref())?)
}
