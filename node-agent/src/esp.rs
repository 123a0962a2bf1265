//! The EFI system partition: what the boot loader sees.
//!
//! Paths are relative to the partition's root. Every change is durable when its call returns, and changes reach the
//! disk in the order of the calls: the boot loader may read the partition after any of them.

mod fat;
mod vfat;

use std::io::{self, Read, Write};

use evenkeel_node_agent_core::layout::Role;
use nix::libc;

pub use fat::FatEsp;
pub use vfat::VfatEsp;

use crate::disk::{Disk, DiskError};

/// A file on the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspFile {
    /// Name in its folder.
    pub name: String,
    /// Bytes.
    pub length: u64,
}

/// The partition's files.
pub trait Esp {
    /// Copies a file's bytes into `sink`; `false` when there is no such file.
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool>;
    /// Writes a file, with its folders; one that is there is replaced, not atomically.
    fn write(&self, path: &str, source: &mut dyn Read) -> io::Result<()>;
    /// Overwrites a file of the same length in its place: nothing else on the partition changes.
    fn overwrite(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file; a file at `to` is an error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is no error.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The files of a folder, by name; none when there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>>;
    /// Bytes that are free.
    fn free(&self) -> io::Result<u64>;
}

/// Why the partition could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The disk has none.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It cannot be mounted or read.
    #[error(
        "{operation} the boot partition of {disk}: install an image first, and check that the kernel has the vfat \
         driver"
    )]
    Io {
        /// `mount`, `open`, …
        operation: &'static str,
        /// The disk.
        disk: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens the partition: by the kernel where it is a device (others may have it mounted), by a FAT library on a disk
/// file, and where the kernel has no driver, so that nobody can have it mounted.
pub fn open(disk: &Disk) -> Result<Box<dyn Esp>, EspError> {
    let partition = disk.partition(Role::Esp)?;
    let failed = |operation| {
        let disk = disk.path().display().to_string();
        move |source| EspError::Io { operation, disk, source }
    };
    if partition.is_device() {
        match VfatEsp::mount(&partition.path) {
            Ok(mounted) => return Ok(Box::new(mounted)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(failed("mount")(error)),
        }
    }
    Ok(Box::new(FatEsp::open(partition).map_err(failed("open"))?))
}

/// Formats the partition.
pub fn format(disk: &Disk) -> Result<(), EspError> {
    let partition = disk.partition(Role::Esp)?;
    fat::format(partition).map_err(|source| EspError::Io {
        operation: "format",
        disk: disk.path().display().to_string(),
        source,
    })
}
