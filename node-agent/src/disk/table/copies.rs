//! The two copies of a partition table, and the boot sector that announces it: what is lost of them, and how it comes
//! back.
//!
//! Linux uses the second copy only where its command line says so (`gpt`), and a firmware need not.

use std::{io, path::Path, sync::Arc};

use gpt::disk::LogicalBlockSize;

use super::{Entry, Placed, boot_sector, entries, window};
use crate::disk::{Access, BlockDevice, DiskError, Window};

/// Ends a boot sector, and where it is (UEFI specification 2.10, 5.2.3).
const BOOT_SIGNATURE: &[u8] = &[0x55, 0xAA];
const BOOT_SIGNATURE_AT: usize = 510;
/// Where its four records are, the bytes of one, and where in it the type is: one of them protects the table.
const RECORDS_AT: usize = 446;
const RECORD: usize = 16;
const TYPE_AT: usize = 4;
const PROTECTIVE: u8 = 0xEE;

const BOOT_SECTOR: &str = "the protective boot sector";
const FIRST: &str = "the first copy of the partition table";
pub(in crate::disk) const SECOND: &str = "the second copy of the partition table";

/// What was written again of a partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MendedTable {
    /// What was lost, in words.
    pub lost: Vec<&'static str>,
    /// Whether the second copy was where the disk ended before it became larger.
    pub moved: bool,
}

impl MendedTable {
    /// Whether nothing was to be done.
    pub fn was_whole(&self) -> bool {
        self.lost.is_empty() && !self.moved
    }
}

/// What of a table can be read.
pub(in crate::disk) struct Copies {
    boot_sector: bool,
    first: Result<Vec<Entry>, gpt::GptError>,
    second: Result<Vec<Entry>, gpt::GptError>,
}

impl Copies {
    pub(in crate::disk) fn read(disk: &Window, size: LogicalBlockSize) -> io::Result<Self> {
        let (first, second) = headers(disk.length(), size);
        let alone = |header, other| entries(&without(disk, other, size.as_u64()), header, size);
        let mut sector = [0; 512];
        disk.read_at(0, &mut sector)?;
        Ok(Self { boot_sector: protects(&sector), first: alone(first, second), second: alone(second, first) })
    }

    /// The partitions, by the first copy or else the second.
    pub(in crate::disk) fn entries(self) -> Result<Vec<Entry>, gpt::GptError> {
        self.first.or_else(|error| self.second.map_err(|_| error))
    }

    /// What is not whole, in words.
    pub(in crate::disk) fn lost(&self) -> Vec<&'static str> {
        let whole =
            [(self.boot_sector, BOOT_SECTOR), (self.first.is_ok(), FIRST), (self.second.is_ok(), SECOND)];
        whole.into_iter().filter(|(whole, _)| !whole).map(|(_, name)| name).collect()
    }
}

/// Writes what is lost, by the copy that is left, durably. Gives what that was.
pub(in crate::disk) fn mend(path: &Path, size: LogicalBlockSize) -> Result<MendedTable, DiskError> {
    let io_error = |operation, source| DiskError::Io { operation, path: path.to_owned(), source };
    let disk = window(path, Access::Read)?;
    let copies = Copies::read(&disk, size).map_err(|source| io_error("read", source))?;
    let mut lost = copies.lost();
    copies.entries().map_err(|source| DiskError::NoTable { path: path.to_owned(), source })?;
    if lost.is_empty() {
        return Ok(MendedTable::default());
    }
    // Not alone: a disk that runs has partitions that are mounted.
    let disk = window(path, Access::WriteShared)?;
    if lost.contains(&BOOT_SECTOR) {
        protect(&disk, size).map_err(|source| io_error("write the boot sector of", source))?;
    }
    let placed = Placed::read(&disk, size).map_err(|error| error.on("read", path))?;
    placed.write(&disk, &placed.table).map_err(|error| error.on("write", path))?;
    let moved = lost.contains(&SECOND) && placed.is_outgrown();
    lost.retain(|name| !moved || *name != SECOND);
    Ok(MendedTable { lost, moved })
}

/// Writes the boot sector's records. Code and the disk's signature before them stay as they are.
fn protect(disk: &Window, size: LogicalBlockSize) -> io::Result<()> {
    let mut code = [0; 440];
    let mut signature = [0; 4];
    disk.read_at(0, &mut code)?;
    disk.read_at(code.len() as u64, &mut signature)?;
    let mut sector = boot_sector(disk.length(), size);
    sector.set_bootcode(code);
    sector.set_disk_signature(signature);
    sector.overwrite_lba0(&mut disk.cursor(0)).map_err(|error| io::Error::other(error.to_string()))?;
    disk.flush()
}

/// Where the headers are on a disk of `length` bytes.
fn headers(length: u64, size: LogicalBlockSize) -> (u64, u64) {
    (size.as_u64(), (length / size.as_u64()).saturating_sub(1) * size.as_u64())
}

/// Whether a boot sector says that there is a table of this kind.
fn protects(sector: &[u8; 512]) -> bool {
    let mut types = (0..4).map(|record| sector[RECORDS_AT + record * RECORD + TYPE_AT]);
    sector[BOOT_SIGNATURE_AT..] == *BOOT_SIGNATURE && types.any(|kind| kind == PROTECTIVE)
}

/// The disk as it is without one of its blocks.
fn without(disk: &Window, at: u64, length: u64) -> Window {
    let size = disk.length();
    Window::new(Arc::new(Without { disk: disk.clone(), at, length }), 0, size)
}

#[derive(Debug)]
struct Without {
    disk: Window,
    at: u64,
    length: u64,
}

impl BlockDevice for Without {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(at, buffer)?;
        for (place, byte) in (at..).zip(buffer) {
            if (self.at..self.at + self.length).contains(&place) {
                *byte = 0;
            }
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.length())
    }
}
