//! `evenkeel-agent cloud-config live`: on the host, applies what the agent asks for to the system that runs, and goes back from
//! what is not kept in time, whatever the cluster does.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_node_agent_core::{
    cloud_config::Stage,
    live_config::{Order, Said, Setting, Stand, UnitStep},
};

use super::{CloudConfigError, Machine, note_applied, parsed};
use crate::{
    guard::{self, GuardError, checks::Checks},
    run::host,
    state_dir::StateDir,
};

const POLL: Duration = Duration::from_secs(5);
/// The unit that starts this; an image without it cannot do it.
const UNIT: &str = "usr/lib/systemd/system/evenkeel-cloud-config-live.path";

/// Options of `evenkeel-agent cloud-config live`.
#[derive(Clone, Debug, clap::Args)]
pub struct LiveArgs {
    /// Folder on the state partition with the agent's order.
    #[arg(long, env = "EVENKEEL_STATE_DIR", default_value = "/var/lib/evenkeel")]
    pub state_dir: PathBuf,
    /// Folder of programs that each say by their exit status whether this machine is healthy.
    #[arg(long, default_value = "/usr/lib/evenkeel/health.d")]
    pub health_dir: PathBuf,
    /// Where the kernel tells of the running system.
    #[arg(long, env = "EVENKEEL_PROC", default_value = "/proc")]
    pub proc: PathBuf,
    /// The system's root; another one than `/` is that of a test.
    #[arg(long, default_value = "/", hide = true)]
    pub root: PathBuf,
}

/// Whether the machine whose `/proc` this is runs a system that can do it.
pub fn is_supported(proc: &Path) -> bool {
    proc.join("1/root").join(UNIT).exists()
}

/// Does what the order says until nothing is left to do.
pub fn follow(args: &LiveArgs) -> Result<(), GuardError> {
    let root = args.root.as_path();
    let Some(running) = host::running_slot(&args.proc)? else { return Ok(()) };
    let state = StateDir::open(&args.state_dir)?;
    let mut checks = Checks::new(&args.health_dir);
    loop {
        let live = state.live_config()?;
        let up = guard::uptime(&args.proc)?.as_secs();
        let step = live.unit_step(&running, up);
        let Some(order) = live.order.filter(|_| step != UnitStep::End) else { return Ok(()) };
        let stand = match step {
            UnitStep::End => return Ok(()),
            UnitStep::Wait => match healthy(&mut checks, &order) {
                Ok(()) => {
                    thread::sleep(POLL);
                    continue;
                }
                Err(message) => go_back(&order, root, (RollbackCause::HostCheck, message)),
            },
            UnitStep::Apply => {
                tracing::info!(
                    release = order.wanted.release,
                    "applying another cloud-config to the system that runs"
                );
                checks = Checks::new(&args.health_dir);
                match apply(&order.wanted, root).and_then(|()| healthy(&mut checks, &order)) {
                    Ok(()) => Stand::Applied { at: guard::uptime(&args.proc)?.as_secs() },
                    Err(message) => go_back(&order, root, (RollbackCause::HostCheck, message)),
                }
            }
            UnitStep::TooLate => {
                let reason =
                    guard::too_late("application", order.deadline_seconds, order.api_server.as_deref());
                go_back(&order, root, reason)
            }
            UnitStep::GoBack => {
                apply_before(&order, root);
                Stand::Withdrawn
            }
        };
        state.write_live_said(&Said { id: order.id, boot_id: order.boot_id, stand })?;
    }
}

/// Asks the image's health checks when it is time to: what is healthy when it was just changed may not stay so.
fn healthy(checks: &mut Checks, order: &Order) -> Result<(), String> {
    if !checks.due() {
        return Ok(());
    }
    checks.ask(Instant::now() + Duration::from_secs(order.deadline_seconds))
}

fn go_back(order: &Order, root: &Path, (cause, message): (RollbackCause, String)) -> Stand {
    tracing::error!(release = order.wanted.release, message, "this cloud-config is given up");
    apply_before(order, root);
    Stand::GivenUp { cause, message }
}

/// What fails of it is told in the journal: there is nothing further back to go to.
fn apply_before(order: &Order, root: &Path) {
    tracing::info!(release = order.before.release, "applying the cloud-config that was there before");
    if let Err(error) = apply(&order.before, root) {
        tracing::error!(error, "the cloud-config that was there before could not be applied whole");
    }
}

/// All stages of each boot, in their order. The document alone: what the machine has of its own was applied at its boot.
fn apply(setting: &Setting, root: &Path) -> Result<(), String> {
    let text = |error: CloudConfigError| format!("{:#}", anyhow::Error::from(error));
    let config = parsed(setting).map_err(text)?;
    let machine = Machine { root: root.to_owned(), digest: setting.release.clone() };
    let stages = Stage::EARLY.into_iter().chain([Stage::AfterUpgrade, Stage::Boot, Stage::Network]);
    for stage in stages {
        let applied = machine.apply(&config, stage);
        applied.written.iter().for_each(|path| tracing::info!(path = %path.display(), "wrote"));
        if let Some((step, error)) = applied.failed.into_iter().next() {
            return Err(format!("{step}: {}", text(error)));
        }
    }
    // What was written must not be lost behind the word that it was.
    nix::unistd::sync();
    note_applied(root, &setting.release).map_err(text)
}
