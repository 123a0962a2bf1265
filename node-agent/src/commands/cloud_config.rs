//! `cloud-config`: apply the machine's own, or check a document.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::{
    cloud_config::{CloudConfig, CloudConfigError as DocumentError, Stage, parse},
    live_config::LiveConfig,
    machine::RunningSlot,
};

use super::{disk, refused};
use crate::{
    args::{CloudConfigApplyArgs, When},
    causes::with_causes,
    cloud_config::{self, CloudConfigError, DOCUMENTS_MAX, Machine},
    grow,
    programs::{self, SYSTEMCTL},
    run::host::running_slot,
    state_dir::{StateDir, StateError},
    tell::tell,
};

/// The units of the later steps, which wait for more of the system.
const BOOT_UNIT: &str = "evenkeel-cloud-config-boot.service";
const NETWORK_UNIT: &str = "evenkeel-cloud-config-network.service";

pub(super) fn apply(args: &CloudConfigApplyArgs) -> Result<()> {
    let disk = disk::open(&args.disk)?;
    let mut config = cloud_config::sources::read(&disk)?;
    let running = running_slot(Path::new("/proc"))?;
    let mut failed = Vec::new();
    let mut release = running.as_ref().map(|running| running.digest.clone()).unwrap_or_default();
    if let Some(running) = &running {
        let live = kept_since(args, running);
        let setting = cloud_config::of_the_cluster(&disk, running, &live);
        match setting.and_then(|setting| Ok((cloud_config::parsed(&setting)?, setting.release))) {
            Ok((from_the_cluster, of)) => {
                config.append(from_the_cluster);
                release = of;
            }
            Err(error) => failed.push(("what came from the cluster".to_owned(), error)),
        }
    }
    if args.stage == When::Early && config.grows() {
        grow::at_boot(&disk, &args.disk.proc);
    }
    let machine = Machine::this(release.clone());
    let stages = match args.stage {
        When::Early => {
            let once = [Stage::AfterInstall, Stage::AfterUpgrade];
            // Steps that are added later were not meant for an installation that is over.
            let nothing = once.into_iter().filter(|stage| !config.has(*stage));
            Stage::EARLY.into_iter().chain(nothing).collect()
        }
        When::Boot => vec![Stage::AfterInstall, Stage::AfterUpgrade, Stage::Boot],
        When::Network => vec![Stage::Network],
    };
    let has_all = failed.is_empty();
    for stage in stages {
        let applied = machine.apply(&config, stage);
        applied.written.iter().for_each(|path| tell!("wrote {}", path.display()));
        failed.extend(applied.failed);
    }
    if args.stage == When::Early {
        start_later_units(&config)?;
        if running.is_some() && has_all {
            cloud_config::note_applied(Path::new("/"), &release)?;
        }
    }
    let count = failed.len();
    let mut errors = failed
        .into_iter()
        .map(|(name, error)| anyhow::Error::from(error).context(format!("cloud-config: {name}")));
    let Some(first) = errors.next() else { return Ok(()) };
    errors.for_each(|error| tell!("{}", with_causes(&error)));
    Err(first.context(format!("{count} steps of this machine's cloud-config failed")))
}

/// What the cluster had applied without a reboot, and kept. A boot that begins with it is counted first: without an agent that
/// comes up, it is given up after a few.
fn kept_since(args: &CloudConfigApplyArgs, running: &RunningSlot) -> LiveConfig {
    let count = |state: &StateDir| {
        let mut live = state.live_config(&running.name)?;
        if args.stage == When::Early
            && let Some(boots) = live.count_boot(running)
        {
            // It is what the agent says that runs, counted or not.
            if let Err(error) = state.write_live_boots(&boots) {
                tell!("this boot is not counted: {:#}", anyhow::Error::from(error));
            }
            live.boots = Some(boots);
        }
        Ok(live)
    };
    StateDir::open(&args.state_dir).and_then(|state| count(&state)).unwrap_or_else(|error: StateError| {
        tell!("what was applied without a reboot is unknown: {:#}", anyhow::Error::from(error));
        LiveConfig::default()
    })
}

/// They run only on machines that have something for them to do: none waits for a network for nothing.
fn start_later_units(config: &CloudConfig) -> Result<()> {
    let boot =
        [Stage::AfterInstall, Stage::AfterUpgrade, Stage::Boot].into_iter().any(|stage| config.has(stage));
    let units = [(boot, BOOT_UNIT), (config.has(Stage::Network), NETWORK_UNIT)];
    for (_, unit) in units.into_iter().filter(|(wanted, _)| *wanted) {
        let started = programs::run(SYSTEMCTL, ["start", "--no-block", unit]);
        let output = started.with_context(|| format!("start {unit}"))?;
        anyhow::ensure!(
            output.status.success(),
            "start {unit}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

pub(super) fn check(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return check_document(path);
    }
    let (documents, too_many) = cloud_config::documents(path)?;
    documents.iter().try_for_each(|document| check_document(document))?;
    let Some(first) = too_many.first() else { return Ok(()) };
    Err(refused(format!(
        "{}: a machine applies {DOCUMENTS_MAX} documents, and {} more would be left out, from {} on: put what they say into \
         fewer",
        path.display(),
        too_many.len(),
        first.display()
    )))
}

fn check_document(path: &Path) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("read the cloud-config {}", path.display()))?;
    understood(path, &text)?;
    tell!("all of {} is understood", path.display());
    Ok(())
}

/// Refuses a document of which a part would be left out.
pub(super) fn understood(path: &Path, text: &str) -> Result<()> {
    let name = path.display().to_string();
    let refuse = |source: DocumentError| CloudConfigError::Document { name: name.clone(), source };
    let unknown = parse(text).map_err(refuse)?.unknown;
    if unknown.is_empty() {
        return Ok(());
    }
    let keys = unknown.join(", ");
    Err(refused(format!(
        "{name}: not supported, and would be left out: {keys}. See docs/cloud-config.md for what is"
    )))
}
