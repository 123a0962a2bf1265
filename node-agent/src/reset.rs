//! A machine that begins anew: the request to the initrd, and what it leaves.

use std::io;

use evenkeel_node_agent_core::reset::{DONE, REQUEST, Reset};

use crate::esp::Esp;

/// Why a request could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path} on the boot partition: is it full, or mounted read-only? Check the disk")]
pub struct ResetError {
    operation: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

impl ResetError {
    /// Whether the partition takes nothing until a person helps.
    pub fn is_read_only(&self) -> bool {
        self.source.kind() == io::ErrorKind::ReadOnlyFilesystem
    }
}

/// Asks the initrd, durably. The slot boots already: a request without that would be found by a later update.
pub fn request(esp: &dyn Esp, reset: &Reset) -> Result<(), ResetError> {
    withdraw(esp)?;
    let new = format!("{REQUEST}.new");
    esp.write(&new, &mut reset.encode().as_bytes()).map_err(|source| failed("write", &new, source))?;
    esp.rename(&new, REQUEST).map_err(|source| failed("rename", &new, source))
}

/// Takes back what was asked for, and forgets what was done; nothing of either is no error.
pub fn withdraw(esp: &dyn Esp) -> Result<(), ResetError> {
    for path in [REQUEST, DONE] {
        esp.remove(path).map_err(|source| failed("remove", path, source))?;
    }
    Ok(())
}

/// What is asked for.
pub fn requested(esp: &dyn Esp) -> Result<Option<Reset>, ResetError> {
    read(esp, REQUEST)
}

/// What the initrd did.
pub fn done(esp: &dyn Esp) -> Result<Option<Reset>, ResetError> {
    read(esp, DONE)
}

fn read(esp: &dyn Esp, path: &str) -> Result<Option<Reset>, ResetError> {
    let mut bytes = Vec::new();
    esp.read(path, &mut bytes).map_err(|source| failed("read", path, source))?;
    Ok(Reset::parse(&String::from_utf8_lossy(&bytes)))
}

fn failed(operation: &'static str, path: &str, source: io::Error) -> ResetError {
    ResetError { operation, path: path.to_owned(), source }
}
