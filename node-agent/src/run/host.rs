//! What the kernel says of the running system.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::machine::RunningSlot;

/// Why the kernel's account could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {path}, which says what this machine runs: is the host's /proc mounted?")]
pub struct HostError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The slot that runs, or `None` on a host that was not booted from one.
pub fn running_slot(proc: &Path) -> Result<Option<RunningSlot>, HostError> {
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|source| HostError { path, source });
    let command_line = read(proc.join("cmdline"))?;
    let boot_id = read(proc.join("sys/kernel/random/boot_id"))?.trim().to_owned();
    let value = |key: &str| command_line.split_whitespace().find_map(|word| word.strip_prefix(key));
    Ok(match (value("evenkeel.slot="), value("evenkeel.digest=")) {
        (Some(name), Some(digest)) => {
            Some(RunningSlot { name: name.to_owned(), digest: digest.to_owned(), boot_id })
        }
        _ => None,
    })
}
