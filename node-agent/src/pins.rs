//! Slots that a person protected from reuse.
//!
//! A pin is a file on the boot partition, named like the slot: it lies on the disk that it speaks of, and is there as
//! long as anything of that disk boots.

use std::{collections::BTreeSet, io};

use crate::{
    disk::{Disk, DiskError},
    esp::{self, EspError},
};

const FOLDER: &str = "evenkeel/pins";

/// Why the pins could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The disk has no such slot.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The boot partition cannot be opened.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The boot partition did not answer.
    #[error("{operation} {path} on the boot partition: is it full, or read-only? Check the disk")]
    Io {
        /// `list`, `write`, …
        operation: &'static str,
        /// Path on the partition.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The pinned slots of a disk.
pub fn read(disk: &Disk) -> Result<BTreeSet<String>, PinError> {
    let files = esp::open(disk)?.list(FOLDER).map_err(|source| failed("list", FOLDER, source))?;
    Ok(files.into_iter().map(|file| file.name).collect())
}

/// Pins a slot, durably; one that is pinned already stays so.
pub fn pin(disk: &Disk, slot: &str) -> Result<(), PinError> {
    disk.slot(slot)?;
    let path = path(slot);
    esp::open(disk)?.write(&path, &mut io::empty()).map_err(|source| failed("write", &path, source))
}

/// Ends a pin, durably; one that is not there is no error.
pub fn unpin(disk: &Disk, slot: &str) -> Result<(), PinError> {
    disk.slot(slot)?;
    let path = path(slot);
    esp::open(disk)?.remove(&path).map_err(|source| failed("remove", &path, source))
}

fn path(slot: &str) -> String {
    format!("{FOLDER}/{slot}")
}

fn failed(operation: &'static str, path: &str, source: io::Error) -> PinError {
    PinError::Io { operation, path: path.to_owned(), source }
}
