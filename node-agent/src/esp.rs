//! The EFI system partition: what the boot loader sees.
//!
//! Paths are relative to the partition's root. Every change is durable when its call returns, and changes reach the
//! disk in the order of the calls: the boot loader may read the partition after any of them.

mod device;
mod each_call;
mod fat;
mod file;
mod read_only;
mod vfat;

use std::io::{self, Read, Write};

use evenkeel_node_agent_core::layout::Role;

use device::DeviceEsp;
pub use fat::FatEsp;
use file::FileEsp;

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
    /// Frees what power cuts have left without a name, as far as it can be told.
    fn reclaim(&self) -> io::Result<()>;
    /// Bytes that are free.
    fn free(&self) -> io::Result<u64>;
}

/// Why the partition could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The disk has none.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It cannot be opened or written.
    #[error(
        "{operation} the boot partition of {disk}: is the disk there, and may this user write to it? One that is damaged \
         is made anew by `evenkeel-agent disk mend`"
    )]
    Io {
        /// `open` or `format`.
        operation: &'static str,
        /// The disk.
        disk: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens the partition. Its bytes are written in an order of our own; only where somebody else has it mounted, the
/// kernel is asked to.
pub fn open(disk: &Disk) -> Result<Box<dyn Esp>, EspError> {
    let partition = disk.partition(Role::Esp)?;
    let failed = |source| EspError::Io { operation: "open", disk: disk.path().display().to_string(), source };
    if partition.is_device() {
        return Ok(Box::new(DeviceEsp::new(partition.clone())));
    }
    if partition.device.is_some() {
        return Ok(Box::new(FatEsp::open(partition).map_err(failed)?));
    }
    Ok(Box::new(FileEsp::new(partition.clone()).map_err(failed)?))
}

/// Takes away what power cuts have left on the partition and no file has, as far as it can be told.
pub fn reclaim(disk: &Disk) -> Result<(), EspError> {
    let mended = open(disk)?.reclaim();
    mended.map_err(|source| EspError::Io {
        operation: "mend",
        disk: disk.path().display().to_string(),
        source,
    })
}

/// Formats the partition.
pub fn format(disk: &Disk) -> Result<(), EspError> {
    let partition = disk.partition(Role::Esp)?;
    fat::format(partition, disk.block_size()?).map_err(|source| EspError::Io {
        operation: "format",
        disk: disk.path().display().to_string(),
        source,
    })
}
