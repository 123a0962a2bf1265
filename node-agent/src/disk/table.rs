//! The partition table: written once on an empty disk, afterwards only read, and written again where a copy is lost or the
//! disk has grown.

mod copies;
mod placed;

use std::{collections::BTreeMap, fs::OpenOptions, io, path::Path, sync::Arc};

use evenkeel_node_agent_core::layout::{Place, Role};
use gpt::{
    GptConfig, GptError,
    disk::LogicalBlockSize,
    mbr::ProtectiveMBR,
    partition::Partition as GptPartition,
    partition_types::{BIOS, EFI, LINUX_FS},
};
use uuid::Uuid;

pub use copies::MendedTable;
pub(super) use copies::{Copies, SECOND, mend};
pub(super) use placed::{Placed, PlacedError};

use super::{Access, DiskError, FileDevice, Window, device, is_block_device};

pub(super) struct Entry {
    pub name: String,
    pub part_uuid: String,
    pub disk_offset: u64,
    pub length: u64,
}

/// What begins a table's header, and where in it the number of its entries and the bytes of each are (UEFI
/// specification 2.10, 5.3.2).
const SIGNATURE: &[u8] = b"EFI PART";
const ENTRIES_AT: usize = 80;
const ENTRY_BYTES_AT: usize = 84;
/// The only length of an entry that the library reads; of another it makes a panic.
const ENTRY_BYTES: u32 = 128;
/// Every program makes 128; the library would read as many as are named.
const ENTRIES_MAX: u32 = 1024;

/// All of a disk.
pub(super) fn window(path: &Path, access: Access) -> Result<Window, DiskError> {
    let device = FileDevice::open(path, access).and_then(|device| Window::whole(Arc::new(device)));
    device.map_err(|source| DiskError::Io { operation: "open", path: path.to_owned(), source })
}

/// The partitions in the table of `path`, which `disk` reads: by its first copy, or else by its second.
pub(super) fn read(path: &Path, disk: &Window, size: LogicalBlockSize) -> Result<Vec<Entry>, DiskError> {
    let no_table = |source| DiskError::NoTable { path: path.to_owned(), source };
    let copies = Copies::read(disk, size).map_err(|error| no_table(error.into()))?;
    copies.entries().map_err(no_table)
}

/// The partitions in the only table of `disk`, whose header is at byte `header`.
fn entries(disk: &Window, header: u64, size: LogicalBlockSize) -> Result<Vec<Entry>, GptError> {
    check_header(disk, header)?;
    let table = GptConfig::new().logical_block_size(size).open_from_device(disk.cursor(0))?;
    let used = table.partitions().values().filter(|partition| partition.is_used());
    let entries = used.map(|partition| {
        Ok(Entry {
            name: partition.name.clone(),
            part_uuid: partition.part_guid.hyphenated().to_string(),
            disk_offset: partition.bytes_start(size)?,
            length: partition.bytes_len(size)?,
        })
    });
    entries.collect::<io::Result<_>>().map_err(GptError::from)
}

/// Fails for a header that the library must not see. One that is none is the library's to tell.
fn check_header(disk: &Window, at: u64) -> io::Result<()> {
    let mut header = [0; 512];
    disk.read_at(at, &mut header)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (entries, bytes) = (word(ENTRIES_AT), word(ENTRY_BYTES_AT));
    if header.starts_with(SIGNATURE) && (bytes != ENTRY_BYTES || entries > ENTRIES_MAX) {
        let what =
            format!("it has {entries} entries of {bytes} bytes, and up to {ENTRIES_MAX} of 128 are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(())
}

pub(super) fn write(path: &Path, places: &[Place]) -> Result<(), DiskError> {
    let io_error = |operation, source| DiskError::Io { operation, path: path.to_owned(), source };
    let failed = |source| DiskError::WriteTable { path: path.to_owned(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).open(path).map_err(|error| io_error("open", error))?;
    let size = block_size(path)?;
    let bytes = device::length(path)?;
    boot_sector(bytes, size)
        .overwrite_lba0(&mut file)
        .map_err(|error| io_error("write the boot sector of", io::Error::other(error.to_string())))?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(size)
        .create_from_device(file, None)
        .map_err(failed)?;
    let partitions: BTreeMap<u32, GptPartition> =
        (1..).zip(places.iter().map(|place| partition(place, size))).collect();
    table.update_partitions(partitions).map_err(failed)?;
    let file = table.write().map_err(failed)?;
    file.sync_all().map_err(|error| io_error("flush", error))
}

/// What says to programs without GPT that a disk of so many bytes is not empty.
fn boot_sector(bytes: u64, size: LogicalBlockSize) -> ProtectiveMBR {
    ProtectiveMBR::with_lb_size(u32::try_from(bytes / size.as_u64() - 1).unwrap_or(u32::MAX))
}

fn partition(place: &Place, size: LogicalBlockSize) -> GptPartition {
    GptPartition {
        part_type_guid: match place.role {
            Role::Esp => EFI,
            Role::Bios => BIOS,
            _ => LINUX_FS,
        },
        part_guid: Uuid::new_v4(),
        first_lba: place.offset / size.as_u64(),
        last_lba: (place.offset + place.length) / size.as_u64() - 1,
        flags: 0,
        name: place.role.partition_name().to_owned(),
    }
}

/// The disk's unit; a file's is that of most disks.
pub(super) fn block_size(path: &Path) -> Result<LogicalBlockSize, DiskError> {
    if is_block_device(path)? && device::logical_block_size(path)? == 4096 {
        return Ok(LogicalBlockSize::Lb4096);
    }
    Ok(LogicalBlockSize::Lb512)
}
