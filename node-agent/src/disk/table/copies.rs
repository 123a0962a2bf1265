//! The two copies of a partition table, and the boot sector that announces it: what is lost of them, and how it comes
//! back.
//!
//! Linux uses the second copy only where its command line says so (`gpt`), and a firmware need not.

use std::{fs::OpenOptions, io, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use gpt::{GptConfig, disk::LogicalBlockSize};

use super::{Entry, boot_sector, entries};
use crate::disk::{Access, BlockDevice, DiskError, FileDevice, Window};

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
const SECOND: &str = "the second copy of the partition table";

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

    /// Where the header of the copy is that is not whole.
    fn damaged(&self, length: u64, size: LogicalBlockSize) -> Option<u64> {
        let (first, second) = headers(length, size);
        match (&self.first, &self.second) {
            (Err(_), _) => Some(first),
            (Ok(_), Err(_)) => Some(second),
            (Ok(_), Ok(_)) => None,
        }
    }

    /// What is not whole, in words.
    pub(in crate::disk) fn lost(&self) -> Vec<&'static str> {
        let whole =
            [(self.boot_sector, BOOT_SECTOR), (self.first.is_ok(), FIRST), (self.second.is_ok(), SECOND)];
        whole.into_iter().filter(|(whole, _)| !whole).map(|(_, name)| name).collect()
    }
}

/// Writes what is lost, by the copy that is left, durably. Gives what that was.
pub(in crate::disk) fn mend(path: &Path, size: LogicalBlockSize) -> Result<Vec<&'static str>, DiskError> {
    let io_error = |operation, source| DiskError::Io { operation, path: path.to_owned(), source };
    let no_table = |source| DiskError::NoTable { path: path.to_owned(), source };
    let device = FileDevice::open(path, Access::Read).and_then(|device| Window::whole(Arc::new(device)));
    let device = device.map_err(|source| io_error("open", source))?;
    let copies = Copies::read(&device, size).map_err(|source| io_error("read", source))?;
    let (lost, damaged) = (copies.lost(), copies.damaged(device.length(), size));
    copies.entries().map_err(no_table)?;
    if lost.is_empty() {
        return Ok(lost);
    }
    // Not alone: a disk that runs has partitions that are mounted.
    let file = OpenOptions::new().read(true).write(true).open(path);
    let mut file = file.map_err(|source| io_error("open", source))?;
    if let Some(header) = damaged {
        // The library believes a header whose entries are damaged.
        let nothing = vec![0; size.as_usize()];
        file.write_all_at(&nothing, header).map_err(|source| io_error("write to", source))?;
    }
    if lost.contains(&BOOT_SECTOR) {
        boot_sector(device.length(), size)
            .overwrite_lba0(&mut file)
            .map_err(|error| io_error("write the boot sector of", io::Error::other(error.to_string())))?;
    }
    let failed = |source| DiskError::WriteTable { path: path.to_owned(), source };
    let table = GptConfig::new().writable(true).logical_block_size(size).open_from_device(file);
    let file = table.and_then(gpt::GptDisk::write).map_err(failed)?;
    file.sync_all().map_err(|source| io_error("flush", source))?;
    Ok(lost)
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
