//! The cluster's document, which came with the image of the slot that runs and is kept in its record, or was applied since.

use std::{fs, path::Path};

use evenkeel_node_agent_core::{
    cloud_config::CloudConfig,
    live_config::{LiveConfig, Setting},
    machine::RunningSlot,
};

use super::{CloudConfigError, document};
use crate::disk::Disk;

/// What this boot applied, by its release; gone with the next boot.
const NOTE: &str = "run/evenkeel/cloud-config-applied";

/// What counts for the slot that runs.
pub fn of_the_cluster(
    disk: &Disk,
    running: &RunningSlot,
    live: &LiveConfig,
) -> Result<Setting, CloudConfigError> {
    if let Some(kept) = live.kept(running) {
        return Ok(kept.setting.clone());
    }
    let record = disk.slot(&running.name)?.read_record()?;
    let (found, runs) = (record.release(), &running.digest);
    if found != *runs {
        return Err(CloudConfigError::Impossible(format!("the slot holds {found} by now, and {runs} runs")));
    }
    Ok(Setting { release: found, document: record.cloud_config })
}

/// What a document of the cluster's says.
pub fn parsed(setting: &Setting) -> Result<CloudConfig, CloudConfigError> {
    match &setting.document {
        Some(text) => document("the cluster's cloud-config", text),
        None => Ok(CloudConfig::default()),
    }
}

/// Notes that this boot applied what belongs to a release.
pub fn note_applied(root: &Path, release: &str) -> Result<(), CloudConfigError> {
    let path = root.join(NOTE);
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, release))
        .map_err(CloudConfigError::io("write", &path))
}

/// Whether the machine whose `/proc` this is applied what belongs to a release. An image whose own program does not know of it
/// applies nothing.
pub fn is_applied(proc: &Path, release: &str) -> bool {
    let note = || fs::read_to_string(proc.join("1/root").join(NOTE));
    !release.contains('+') || note().is_ok_and(|noted| noted == release)
}
