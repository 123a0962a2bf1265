//! The cluster's document, which came with the image of the slot that runs and is kept in its record.

use std::{fs, path::Path};

use evenkeel_node_agent_core::{cloud_config::CloudConfig, machine::RunningSlot};

use super::{CloudConfigError, document};
use crate::disk::Disk;

/// What this boot applied, as the kernel command line names it; gone with the next boot.
const NOTE: &str = "run/evenkeel/cloud-config-applied";

/// What it says.
pub fn of_the_cluster(disk: &Disk, running: &RunningSlot) -> Result<CloudConfig, CloudConfigError> {
    let record = disk.slot(&running.name)?.read_record()?;
    let (found, runs) = (record.release(), &running.digest);
    if found != *runs {
        return Err(CloudConfigError::Impossible(format!("the slot holds {found} by now, and {runs} runs")));
    }
    match record.cloud_config {
        Some(text) => document("the cluster's cloud-config", &text),
        None => Ok(CloudConfig::default()),
    }
}

/// Notes that this boot applied what came with the slot that runs.
pub fn note_applied(root: &Path, running: &RunningSlot) -> Result<(), CloudConfigError> {
    let path = root.join(NOTE);
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, &running.digest))
        .map_err(CloudConfigError::io("write", &path))
}

/// Whether the machine whose `/proc` this is applied what came with the slot that runs. An image whose own program does not know
/// of it applies nothing.
pub fn is_applied(proc: &Path, running: &RunningSlot) -> bool {
    let comes_with_one = running.digest.contains('+');
    let note = || fs::read_to_string(proc.join("1/root").join(NOTE));
    !comes_with_one || note().is_ok_and(|noted| noted == running.digest)
}
