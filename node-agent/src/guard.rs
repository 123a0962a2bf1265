//! `evenkeel-agent guard`: on the host, checks a trial boot's health, and ends one that is not kept in time, whatever
//! the cluster does.

pub(crate) mod checks;
mod reach;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent_core::{
    journal::{ChecksPassed, ResetDone, TrialOrder, Verdict},
    machine::RunningSlot,
    reset::Reset,
};

use crate::{
    args::HostArgs,
    boot::{self, BootError},
    causes::with_causes,
    disk::{self, Disk, DiskError},
    esp::Esp,
    programs::{self, SYSTEMCTL},
    reboot::{self, RebootError},
    reset::{self, ResetError},
    run::host::{self, HostError},
    state_dir::{StateDir, StateError},
};

use checks::Checks;

/// Seconds from the boot to the end of a trial that nobody gave another deadline.
const DEADLINE_SECONDS_DEFAULT: u64 = 1800;
const POLL: Duration = Duration::from_secs(5);
/// systemd's default time for a service to stop is 90 s; twice that.
const INIT_PATIENCE: Duration = Duration::from_mins(3);

/// Options of `evenkeel-agent guard`.
#[derive(Clone, Debug, clap::Args)]
pub struct GuardArgs {
    /// Disk with Evenkeel's layout; default: the one that this machine runs from.
    #[arg(long, env = "EVENKEEL_DISK")]
    pub disk: Option<PathBuf>,
    /// The host.
    #[command(flatten)]
    pub host: HostArgs,
    /// Program that reboots the host, for hosts whose init is not systemd.
    #[arg(long, env = "EVENKEEL_REBOOT_COMMAND")]
    pub reboot_command: Option<PathBuf>,
}

/// Why the guard could not do its work. The unit starts it again.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The running system is unknown.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The boot loader cannot be used.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// What the initrd left cannot be read.
    #[error(transparent)]
    Reset(#[from] ResetError),
    /// The state partition cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A cloud-config could not be applied.
    #[error("{0}")]
    CloudConfig(String),
    /// The reboot was refused.
    #[error(transparent)]
    Reboot(#[from] RebootError),
    /// The time since the boot is unknown.
    #[error("read {0}: is /proc mounted?")]
    Uptime(PathBuf, #[source] io::Error),
}

/// Watches this boot until it is kept, was no trial, or is sent back.
pub fn guard(args: &GuardArgs) -> Result<(), GuardError> {
    let Some(running) = host::running_slot(&args.host.proc)? else { return Ok(()) };
    let disk = disk::open_or_find(args.disk.as_deref(), &args.host.proc)?;
    let bootloader = boot::open(&disk)?;
    let done = reset::done(bootloader.esp())?.filter(|done| done.is_of(&running.name, &running.digest));
    if !on_trial(&disk, &running.name)? {
        tracing::info!(slot = running.name, anew = done.is_some(), "this boot is no trial");
        return done.map_or(Ok(()), |done| forget_reset(args, bootloader.esp(), &done));
    }
    // What is opened may be mounted, and others may want to write meanwhile.
    drop(bootloader);
    let order = order(&args.host.state_dir, &running.digest);
    let deadline = order.as_ref().map_or(DEADLINE_SECONDS_DEFAULT, |order| order.deadline_seconds);
    tracing::info!(slot = running.name, deadline, "this boot is a trial");
    let api_server = order.and_then(|order| order.api_server);
    let trial = Trial { disk: &disk, running: &running, anew: done.is_some() };
    let Some((cause, message)) = watch(args, &trial, deadline, api_server.as_deref())? else {
        tracing::info!(slot = running.name, "the trial was kept, or ended by the agent");
        return done.map_or(Ok(()), |done| forget_reset(args, boot::open(&disk)?.esp(), &done));
    };
    tracing::error!(slot = running.name, message, "this trial goes back to the old slot");
    end(args, &disk, &running, cause, message)
}

/// Removes what the initrd left. Whose order it was is written down first: without that it would be carried out again.
fn forget_reset(args: &GuardArgs, esp: &dyn Esp, done: &Reset) -> Result<(), GuardError> {
    if let Some(asked) = &done.asked {
        StateDir::open(&args.host.state_dir)?.write_reset_done(&ResetDone { id: asked.id.clone() })?;
    }
    Ok(reset::withdraw(esp)?)
}

/// What the agent said of this trial. A state partition that is full, read-only or damaged is a reason to go back, and
/// none to stop watching.
fn order(state_dir: &Path, digest: &str) -> Option<TrialOrder> {
    let order = StateDir::open(state_dir).and_then(|state| state.trial());
    order
        .unwrap_or_else(|error| {
            tracing::error!(error = text(error), "what the agent said of this trial is unknown");
            None
        })
        .filter(|order| order.digest == digest)
}

/// Leaves the reason, makes the slot unbootable, and reboots. The reboot alone leads back in the end, as the boot loader
/// counts: it comes whatever else fails.
fn end(
    args: &GuardArgs,
    disk: &Disk,
    running: &RunningSlot,
    cause: RollbackCause,
    message: String,
) -> Result<(), GuardError> {
    let verdict = Verdict { digest: running.digest.clone(), cause, message };
    if let Err(error) = StateDir::open(&args.host.state_dir).and_then(|state| state.write_verdict(&verdict)) {
        tracing::error!(error = text(error), "the old slot will not know why it runs again");
    }
    if let Err(error) = boot::open(disk).and_then(|bootloader| bootloader.disarm(&running.name)) {
        tracing::error!(error = text(error), "this slot stays bootable until its tries are used up");
    }
    reboot::reboot(args.reboot_command.as_deref())?;
    if args.reboot_command.is_none() {
        // Init stops this program long before, unless it hangs or never finishes stopping others.
        thread::sleep(INIT_PATIENCE);
        tracing::error!("init did not reboot this machine in time: it is reset");
        reboot::reset()?;
    }
    Ok(())
}

/// An error with its causes.
fn text(error: impl Into<anyhow::Error>) -> String {
    with_causes(&error.into())
}

pub(crate) type Reason = (RollbackCause, String);

/// A boot on trial.
struct Trial<'a> {
    disk: &'a Disk,
    running: &'a RunningSlot,
    /// Whether the machine began anew in it, so that no cluster knows it, and the health checks have the last word.
    anew: bool,
}

impl Trial<'_> {
    /// Whether it is still one. A boot partition that cannot be read ends nothing: the deadline does.
    fn goes_on(&self) -> bool {
        on_trial(self.disk, &self.running.name).unwrap_or_else(|error| {
            tracing::error!(error = text(error), "whether this trial was kept is unknown");
            true
        })
    }

    /// Says that the checks of this host passed; `false` where that cannot be written, so that nobody keeps the trial.
    fn tell_passed(&self, state_dir: &Path) -> bool {
        let passed = ChecksPassed { boot_id: self.running.boot_id.clone() };
        let told = StateDir::open(state_dir).and_then(|state| state.write_checks_passed(&passed));
        match told {
            Ok(()) => tracing::info!(slot = self.running.name, "the health checks of this host passed"),
            Err(error) => {
                tracing::error!(
                    error = text(error),
                    "the health checks passed, and the agent cannot be told"
                );
                return false;
            }
        }
        true
    }
}

/// Waits for the end of the trial: nothing when it was kept, a reason when it is to go back.
fn watch(
    args: &GuardArgs,
    trial: &Trial<'_>,
    deadline: u64,
    api_server: Option<&str>,
) -> Result<Option<Reason>, GuardError> {
    let mut checks = Checks::new(&args.host.health_dir);
    let mut told = false;
    loop {
        if !trial.goes_on() {
            return Ok(None);
        }
        let left = Duration::from_secs(deadline).saturating_sub(uptime(&args.host.proc)?);
        if left.is_zero() {
            return Ok(Some(too_late("boot", deadline, api_server)));
        }
        if checks.due() && is_up() {
            if let Err(message) = checks.ask(Instant::now() + left) {
                // A person may have kept it in the meantime, whatever its checks say.
                return Ok(trial.goes_on().then_some((RollbackCause::HostCheck, message)));
            }
            told = told || trial.tell_passed(&args.host.state_dir);
            if told && trial.anew {
                match boot::open(trial.disk).and_then(|bootloader| bootloader.commit(&trial.running.name)) {
                    Ok(()) => continue,
                    Err(error) => tracing::error!(error = text(error), "this trial cannot be kept"),
                }
            }
        }
        thread::sleep(POLL);
    }
}

/// Whom a commit that did not come in time is held against.
pub(crate) fn too_late(begin: &str, deadline: u64, api_server: Option<&str>) -> Reason {
    let late = format!("the trial was not kept within {deadline} s of its {begin}");
    match api_server.map(reach::reach) {
        Some(Err(unreachable)) => {
            let message = format!(
                "{late}: {unreachable}. If the other nodes reach it, the image's network does not work on this machine"
            );
            (RollbackCause::ClusterUnreachable, message)
        }
        Some(Ok(())) | None => (RollbackCause::Deadline, late),
    }
}

fn on_trial(disk: &Disk, slot: &str) -> Result<bool, GuardError> {
    let entries = boot::open(disk)?.entries()?;
    Ok(entries.iter().any(|entry| entry.name.slot == slot && entry.name.tries.is_some()))
}

/// Health says nothing before the system is up. A host that was not booted with systemd (`sd_booted(3)`) counts as up,
/// also where systemd's programs are installed.
fn is_up() -> bool {
    if !Path::new("/run/systemd/system").is_dir() {
        return true;
    }
    let asked = programs::run(SYSTEMCTL, ["is-active", "--quiet", "multi-user.target"]);
    asked.is_err() || asked.is_ok_and(|output| output.status.success())
}

pub(crate) fn uptime(proc: &Path) -> Result<Duration, GuardError> {
    let path = proc.join("uptime");
    let text = fs::read_to_string(&path).map_err(|source| GuardError::Uptime(path.clone(), source))?;
    let seconds = text.split('.').next().and_then(|whole| whole.trim().parse().ok());
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| GuardError::Uptime(path, io::ErrorKind::InvalidData.into()))
}
