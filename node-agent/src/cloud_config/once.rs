//! What is done once and not at each boot. It is noted after the deed, so that what was cut off is done again.

use std::{fs, path::PathBuf};

use evenkeel_node_agent_core::{
    cloud_config::{Stage, Step},
    digest::hex,
};
use sha2::{Digest as _, Sha256};

use super::{CloudConfigError, Machine, files};

/// Folder of the notes, on the state partition.
const FOLDER: &str = "/var/lib/evenkeel/cloud-config";
const MODE: u32 = 0o600;

/// A note.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    content: String,
    /// Whether there is nothing to do where there is no note yet.
    is_change: bool,
}

impl Mark {
    /// That of a step. Its commands are part of the name: others are done too.
    pub(super) fn of_step(machine: &Machine, step: &Step) -> Self {
        let name = hex(&Sha256::digest(step.commands.join("\n")));
        Self { path: machine.at(FOLDER).join(name), content: String::new(), is_change: false }
    }

    /// That of a stage that is not for each boot.
    pub(super) fn of_stage(machine: &Machine, stage: Stage) -> Option<Self> {
        let (name, content, is_change) = match stage {
            Stage::AfterInstall => ("after-install", String::new(), false),
            Stage::AfterUpgrade => ("after-upgrade", machine.digest.clone(), true),
            _ => return None,
        };
        Some(Self { path: machine.at(FOLDER).join(name), content, is_change })
    }

    pub(super) fn is_due(&self) -> bool {
        fs::read_to_string(&self.path).map_or(!self.is_change, |content| content != self.content)
    }

    pub(super) fn set(&self) -> Result<(), CloudConfigError> {
        // What commands wrote may still be in memory only, and is not done again once there is a note.
        nix::unistd::sync();
        files::replace(&self.path, self.content.as_bytes(), MODE, (None, None))
            .map(drop)
            .map_err(CloudConfigError::io("write", &self.path))
    }
}
