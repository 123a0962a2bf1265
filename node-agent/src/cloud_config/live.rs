//! `evenkeel-agent cloud-config live`: on the host, applies what the agent asks for to the system that runs, and goes back from
//! what is not kept in time, whatever the cluster does.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent_core::{
    cloud_config::Stage,
    live_config::{Order, Said, Setting, Stand, UnitStep},
    machine::RunningSlot,
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{CloudConfigError, Machine, note_applied, parsed};
use crate::{
    args::HostArgs,
    causes::with_causes,
    guard::{self, GuardError, Reason, checks::Checks},
    run::host,
    state_dir::StateDir,
};

const POLL: Duration = Duration::from_secs(5);
/// Pause before the state partition is used again that could not be; it doubles with each further time.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(5);
const CHILD_POLL: Duration = Duration::from_millis(100);
/// The unit that starts this; an image without it cannot do it.
const UNIT: &str = "usr/lib/systemd/system/evenkeel-cloud-config-live.path";
/// Where the program that applies says why it could not, beside the agent's documents.
const FAILURE: &str = "live-failure.txt";
/// What is told of it.
const FAILURE_BYTES_MAX: usize = 1000;

/// Options of `evenkeel-agent cloud-config live`.
#[derive(Clone, Debug, clap::Args)]
pub struct LiveArgs {
    /// The host.
    #[command(flatten)]
    pub host: HostArgs,
    /// The system's root; another one than `/` is that of a test.
    #[arg(long, default_value = "/", hide = true)]
    pub root: PathBuf,
    /// This program, which is started again for each application; default: what runs.
    #[arg(long, hide = true)]
    pub program: Option<PathBuf>,
    /// Only apply this of the order, and end.
    #[arg(long, value_enum, hide = true)]
    pub apply: Option<Which>,
}

/// One of the two settings of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// What is tried.
    Wanted,
    /// What is gone back to.
    Before,
}

impl Which {
    fn word(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Before => "before",
        }
    }
}

/// Whether the machine whose `/proc` this is runs a system that can do it.
pub fn is_supported(proc: &Path) -> bool {
    proc.join("1/root").join(UNIT).exists()
}

/// Does what the order says until nothing is left to do.
pub fn follow(args: &LiveArgs) -> Result<(), GuardError> {
    let Some(running) = host::running_slot(&args.host.proc)? else { return Ok(()) };
    let state = StateDir::open(&args.host.state_dir)?;
    let mut unit = Unit { args, state, running, unsaid: None };
    let mut checks = Checks::new(&args.host.health_dir);
    let mut pause = None;
    loop {
        match unit.step(&mut checks) {
            Ok(true) => pause = None,
            Ok(false) => return Ok(()),
            Err(GuardError::State(error)) => {
                if pause.is_none() {
                    let error = with_causes(&error.into());
                    tracing::error!(error, "nothing more is applied until the state partition can be used");
                }
                let next = pause.map_or(PAUSE_MIN, |pause: Duration| PAUSE_MAX.min(pause * 2));
                thread::sleep(next);
                pause = Some(next);
            }
            Err(error) => return Err(error),
        }
    }
}

struct Unit<'a> {
    args: &'a LiveArgs,
    state: StateDir,
    running: RunningSlot,
    /// What came of an order from which it was gone back, and could not be written down.
    unsaid: Option<Said>,
}

impl Unit<'_> {
    /// One step; whether there is another one. What is said is written down before it is relied on.
    fn step(&mut self, checks: &mut Checks) -> Result<bool, GuardError> {
        let live = self.state.live_config(&self.running.name)?;
        let step = live.unit_step(&self.running, self.up()?);
        let Some(order) = &live.order else { return Ok(false) };
        if let Some(said) = self.unsaid.as_ref().filter(|said| said.id == order.id) {
            self.state.write_live_said(said)?;
            self.unsaid = None;
            return Ok(true);
        }
        match step {
            UnitStep::End => return Ok(false),
            UnitStep::Wait => match healthy(checks, order) {
                Ok(()) => thread::sleep(POLL),
                Err(message) => self.leave(order, (RollbackCause::HostCheck, message))?,
            },
            UnitStep::Apply => {
                tracing::info!(
                    release = order.wanted.release,
                    "applying another cloud-config to the system that runs"
                );
                self.say(order, Stand::Applying)?;
                *checks = Checks::new(&self.args.host.health_dir);
                let applied = self.apply(order, Which::Wanted).and_then(|()| healthy(checks, order));
                let at = self.up()?;
                let said = applied.and_then(|()| {
                    let said = self.say(order, Stand::Applied { at });
                    said.map_err(|error| {
                        format!("it was applied, and nobody can be told: {}", with_causes(&error.into()))
                    })
                });
                if let Err(message) = said {
                    self.leave(order, (RollbackCause::HostCheck, message))?;
                }
            }
            UnitStep::CutOff => {
                let message = "what applied it was cut off: look at the machine's journal".to_owned();
                self.leave(order, (RollbackCause::HostCheck, message))?;
            }
            UnitStep::TooLate => {
                let server = order.api_server.as_deref();
                self.leave(order, guard::too_late("application", order.deadline_seconds, server))?;
            }
            UnitStep::GoBack => {
                self.apply_before(order);
                let stand = match live.stand(&order.id, &order.boot_id).cloned() {
                    Some(Stand::Leaving { cause, message }) => Stand::GivenUp { cause, message },
                    _ => Stand::Withdrawn,
                };
                self.say(order, stand.clone()).inspect_err(|_| self.unsaid = Some(said(order, stand)))?;
            }
        }
        Ok(true)
    }

    fn up(&self) -> Result<u64, GuardError> {
        Ok(guard::uptime(&self.args.host.proc)?.as_secs())
    }

    fn say(&self, order: &Order, stand: Stand) -> Result<(), GuardError> {
        Ok(self.state.write_live_said(&said(order, stand))?)
    }

    /// Gives up what is on trial, unless it was kept in the meantime. Where that cannot be written down, what was before is
    /// applied all the same, once.
    fn leave(&mut self, order: &Order, (cause, message): Reason) -> Result<(), GuardError> {
        let leave = || {
            let _lock = self.state.lock_live()?;
            let live = self.state.live_config(&self.running.name)?;
            if live.keeps(&self.running, &order.wanted.release) {
                return Ok(());
            }
            tracing::error!(release = order.wanted.release, message, "this cloud-config is given up");
            // What is not said to be applied is not kept, and to remove a word needs no room.
            let unsay = |_: &_| self.state.clear_live_said().unwrap_or_default();
            self.say(order, Stand::Leaving { cause, message: message.clone() }).inspect_err(unsay)
        };
        leave().inspect_err(|_| {
            self.apply_before(order);
            self.unsaid = Some(said(order, Stand::GivenUp { cause, message }));
        })
    }

    /// What fails of it is told in the journal: there is nothing further back to go to.
    fn apply_before(&self, order: &Order) {
        tracing::info!(release = order.before.release, "applying the cloud-config that was there before");
        if let Err(error) = self.apply(order, Which::Before) {
            tracing::error!(error, "the cloud-config that was there before could not be applied whole");
        }
    }

    /// Applies a setting in a process of its own, which ends when its time is over or the order is withdrawn, whatever
    /// a command of the document does.
    fn apply(&self, order: &Order, which: Which) -> Result<(), String> {
        let start = |error: std::io::Error| format!("start the program that applies it: {error}");
        let failure = self.args.host.state_dir.join(FAILURE);
        let _ = fs::remove_file(&failure);
        let program = self.args.program.clone().map_or_else(std::env::current_exe, Ok).map_err(start)?;
        let mut command = Command::new(program);
        command.args(["cloud-config", "live", "--apply", which.word()]);
        command.arg("--state-dir").arg(&self.args.host.state_dir).arg("--proc").arg(&self.args.host.proc);
        command.arg("--root").arg(&self.args.root).stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(start)?;
        let status = self.wait(&mut child, order, which)?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&failure).unwrap_or_default();
        let said: String = said.chars().take(FAILURE_BYTES_MAX / 4).collect();
        Err(if said.is_empty() { format!("it ended with {status}") } else { said })
    }

    fn wait(
        &self,
        child: &mut Child,
        order: &Order,
        which: Which,
    ) -> Result<std::process::ExitStatus, String> {
        let limit = Duration::from_secs(order.deadline_seconds);
        let (begun, mut looked) = (Instant::now(), Instant::now());
        loop {
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            let mut withdrawn = false;
            if which == Which::Wanted && looked.elapsed() >= POLL {
                looked = Instant::now();
                let now = self.state.live_config(&self.running.name).ok().and_then(|live| live.order);
                withdrawn = now.is_some_and(|now| now.id == order.id && now.withdrawn);
            }
            if withdrawn || begun.elapsed() >= limit {
                // All that it started, but for what made itself independent.
                let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
                let _ = child.wait();
                let seconds = begun.elapsed().as_secs();
                return Err(format!("it was not applied in {seconds} s: a command of it does not end"));
            }
            thread::sleep(CHILD_POLL);
        }
    }
}

fn said(order: &Order, stand: Stand) -> Said {
    Said { id: order.id.clone(), boot_id: order.boot_id.clone(), stand }
}

/// Asks the image's health checks when it is time to: what is healthy when it was just changed may not stay so.
fn healthy(checks: &mut Checks, order: &Order) -> Result<(), String> {
    if !checks.due() {
        return Ok(());
    }
    checks.ask(Instant::now() + Duration::from_secs(order.deadline_seconds))
}

/// Applies one setting of the order: what another process of this program is started for.
pub fn apply_one(args: &LiveArgs, which: Which) -> Result<(), GuardError> {
    let Some(running) = host::running_slot(&args.host.proc)? else { return Ok(()) };
    let Some(order) = StateDir::open(&args.host.state_dir)?.live_config(&running.name)?.order else {
        return Ok(());
    };
    let done = match which {
        Which::Wanted => apply(&order.wanted, &args.root, true),
        Which::Before => apply(&order.before, &args.root, false),
    };
    done.map_err(|message| {
        // Without it the journal alone says why.
        let _ = fs::write(args.host.state_dir.join(FAILURE), &message);
        GuardError::CloudConfig(message)
    })
}

/// All stages of each boot, in their order. The document alone: what the machine has of its own was applied at its boot. On the
/// way back a step that fails keeps no other from being done, as at a boot.
fn apply(setting: &Setting, root: &Path, ends_at_failure: bool) -> Result<(), String> {
    let text = |error: CloudConfigError| format!("{:#}", anyhow::Error::from(error));
    let config = parsed(setting).map_err(text)?;
    let machine = Machine { root: root.to_owned(), digest: setting.release.clone() };
    let stages = Stage::EARLY.into_iter().chain([Stage::AfterUpgrade, Stage::Boot, Stage::Network]);
    let mut failed = None;
    for stage in stages {
        let applied = machine.apply(&config, stage);
        applied.written.iter().for_each(|path| tracing::info!(path = %path.display(), "wrote"));
        for (step, error) in applied.failed {
            let message = format!("{step}: {}", text(error));
            tracing::error!(message, "a step failed");
            failed.get_or_insert(message);
        }
        if ends_at_failure && failed.is_some() {
            break;
        }
    }
    // What was written must not be lost behind the word that it was.
    nix::unistd::sync();
    if failed.is_none() || !ends_at_failure {
        note_applied(root, &setting.release).map_err(text)?;
    }
    failed.map_or(Ok(()), Err)
}
