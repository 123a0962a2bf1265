//! The cluster's document, which came with the image of the slot that runs and is kept in its record.

use evenkeel_node_agent_core::{cloud_config::CloudConfig, machine::RunningSlot};

use super::{CloudConfigError, document};
use crate::disk::Disk;

const NAME: &str = "the cluster's cloud-config";

/// What it says; one that cannot be had or is damaged is told and left out.
pub fn of_the_cluster(disk: &Disk, running: &RunningSlot) -> CloudConfig {
    let said = text(disk, running).and_then(|text| match text {
        Some(text) => document(NAME, &text),
        None => Ok(CloudConfig::default()),
    });
    said.unwrap_or_else(|error| {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::error!(error, slot = running.name, "{NAME} is left out");
        CloudConfig::default()
    })
}

fn text(disk: &Disk, running: &RunningSlot) -> Result<Option<String>, CloudConfigError> {
    let record = disk.slot(&running.name)?.read_record()?;
    let (found, runs) = (record.release(), &running.digest);
    if found == *runs {
        return Ok(record.cloud_config);
    }
    Err(CloudConfigError::Impossible(format!("the slot holds {found} by now, and {runs} runs")))
}
