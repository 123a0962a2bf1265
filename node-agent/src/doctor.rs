//! What is seen of a machine, for the verdicts of [`evenkeel_node_agent_core::doctor`].

mod disk;
mod host;

use std::path::{Path, PathBuf};

use evenkeel_node_agent_core::doctor::Facts;
use jiff::Timestamp;

use crate::{causes::with_causes, disk::open_or_find};

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place {
    /// A disk that is named; else the one that this machine runs from.
    pub disk: Option<PathBuf>,
    /// Whether this machine is looked at too.
    pub machine: bool,
    /// The agent's folder; it is made by others.
    pub state_dir: PathBuf,
    /// Where the kernel tells of the running system.
    pub proc: PathBuf,
    /// Program that reboots the host, if its init is not asked.
    pub reboot_command: Option<PathBuf>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing is changed.
    Only,
    /// A small file is written to the boot partition and removed again.
    AndWrite,
}

/// Looks. What cannot be seen is a fact too, with the error's words.
pub fn look(place: &Place, how: Look) -> Facts {
    let disk = open_or_find(place.disk.as_deref(), &place.proc);
    let host = place.machine.then(|| host::look(place, disk.as_ref().ok()));
    let running = host.as_ref().and_then(|host| host.running.as_deref());
    let disk = disk.map(|disk| disk::look(&disk, running, how)).map_err(words);
    Facts { disk, host, now: Timestamp::now() }
}

/// An error with all that is below it.
fn words(error: impl Into<anyhow::Error>) -> String {
    with_causes(&error.into())
}

/// Where the files of the host's own root are: a container has another one.
fn host_root(proc: &Path) -> Option<PathBuf> {
    let root = proc.join("1/root");
    root.join("etc").exists().then_some(root)
}
