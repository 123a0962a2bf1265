//! What the kernel knows of a block device, from `/sys/class/block`.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::DiskError;

const CLASS: &str = "/sys/class/block";
/// Unit of `start` and `size` in sysfs, whatever the device's own block size is.
const SYSFS_SECTOR: u64 = 512;

/// Bytes of a disk file or device.
pub(super) fn length(path: &Path) -> Result<u64, DiskError> {
    File::open(path)
        .and_then(|mut file| file.seek(SeekFrom::End(0)))
        .map_err(|source| failed("read the size of", path, source))
}

pub(super) fn logical_block_size(path: &Path) -> Result<u64, DiskError> {
    number(&folder(path)?.join("queue/logical_block_size"))
        .map_err(|source| failed("read the block size of", path, source))
}

/// The device node of the partition that starts at `disk_offset`.
pub(super) fn partition_node(disk: &Path, disk_offset: u64) -> Result<PathBuf, DiskError> {
    let folder = folder(disk)?;
    let listing = fs::read_dir(&folder).map_err(|source| failed("list the partitions of", disk, source))?;
    for entry in listing.flatten() {
        let place = entry.path();
        let is_partition = place.join("partition").exists();
        if is_partition && number(&place.join("start")).is_ok_and(|start| start * SYSFS_SECTOR == disk_offset)
        {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(DiskError::NoNode { path: disk.to_owned(), disk_offset })
}

/// Whether a device is a part of another one.
pub(super) fn is_partition(path: &Path) -> Result<bool, DiskError> {
    Ok(folder(path)?.join("partition").exists())
}

/// The number of a partition on its disk.
pub(super) fn partition_number(partition: &Path) -> Result<i32, DiskError> {
    let number = number(&folder(partition)?.join("partition"));
    number
        .and_then(|number| i32::try_from(number).map_err(io::Error::other))
        .map_err(|source| failed("read the number of the partition", partition, source))
}

/// Bytes of a partition, as the kernel knows it.
pub(super) fn partition_length(partition: &Path) -> Result<u64, DiskError> {
    let sectors = number(&folder(partition)?.join("size"));
    sectors
        .map(|sectors| sectors * SYSFS_SECTOR)
        .map_err(|source| failed("read the size of the partition", partition, source))
}

/// The numbers of the partitions that the kernel knows of a disk.
pub(super) fn partition_numbers(disk: &Path) -> Result<Vec<i32>, DiskError> {
    let folder = folder(disk)?;
    let listing = fs::read_dir(&folder).map_err(|source| failed("list the partitions of", disk, source))?;
    let numbers = listing.flatten().filter_map(|entry| number(&entry.path().join("partition")).ok());
    Ok(numbers.filter_map(|number| i32::try_from(number).ok()).collect())
}

/// The device nodes of all whole disks.
pub(super) fn disks() -> Result<Vec<PathBuf>, DiskError> {
    let class = Path::new(CLASS);
    let listing = fs::read_dir(class).map_err(|source| failed("list", class, source))?;
    let mut disks: Vec<PathBuf> = listing
        .flatten()
        .filter(|entry| !entry.path().join("partition").exists())
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    disks.sort();
    Ok(disks)
}

/// What the kernel calls devices that hold nothing of their own, or that are slow to say that they are empty.
const NO_DISKS: [&str; 8] = ["dm-", "fd", "loop", "md", "mtdblock", "nbd", "ram", "zram"];

/// The device nodes of all other disks than this one, and of their partitions.
pub(super) fn others(disk: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let class = Path::new(CLASS);
    let own = folder(disk)?.canonicalize().ok();
    let listing = fs::read_dir(class).map_err(|source| failed("list", class, source))?;
    let mut others: Vec<PathBuf> = listing
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let is_disk = !NO_DISKS.iter().any(|start| name.to_string_lossy().starts_with(start));
            // A partition's folder is in that of its disk.
            let is_own = entry
                .path()
                .canonicalize()
                .is_ok_and(|place| own.as_ref().is_some_and(|own| place.starts_with(own)));
            is_disk && !is_own && number(&entry.path().join("size")).is_ok_and(|size| size > 0)
        })
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    others.sort();
    Ok(others)
}

fn folder(path: &Path) -> Result<PathBuf, DiskError> {
    let real = path.canonicalize().map_err(|source| failed("open", path, source))?;
    Ok(Path::new(CLASS).join(real.file_name().unwrap_or_default()))
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> DiskError {
    DiskError::Io { operation, path: path.to_owned(), source }
}
