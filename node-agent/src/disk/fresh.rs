//! What may become a disk of ours, and one that was begun and not finished.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use evenkeel_node_agent_core::layout::{self, MIB};
use nix::libc;

use super::{DiskError, Sizes, device};

/// Bytes of a disk file whose size nobody gives: two slots for any system, and it takes only the room that is written
/// to.
const FILE_BYTES_DEFAULT: u64 = 8 << 30;

/// Where the mark of an unfinished disk lies: behind the partition table, which ends before byte 139264 (34 blocks of 4096
/// bytes), and before the first partition at 1 MiB.
const MARK_AT: u64 = 512 << 10;
const MARK: &[u8; 33] = b"evenkeel: this disk is being made";
/// Larger than the blocks of every disk.
const BLOCK: usize = 4096;

/// Fails for a device that is in use or is a part of a disk, and for what is not blank, unless `overwrite` says that
/// nothing on it is needed, or it was to be made before. A file need not be there.
pub(super) fn check(path: &Path, overwrite: bool) -> Result<(), DiskError> {
    let failed = |operation, source| DiskError::Io { operation, path: path.to_owned(), source };
    if std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    if super::is_block_device(path)? {
        if device::is_partition(path)? {
            return Err(DiskError::Partition(path.to_owned()));
        }
        options.write(true).custom_flags(libc::O_EXCL);
    }
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            return Err(DiskError::InUse(path.to_owned()));
        }
        file => file.map_err(|error| failed("open", error))?,
    };
    let length = device::length(path)?;
    if overwrite
        || is_marked(&file, length)
        || is_blank(&file, length).map_err(|error| failed("read", error))?
    {
        return Ok(());
    }
    Err(DiskError::Exists(path.to_owned()))
}

/// Bytes of a disk's file: what is wanted, or what one has that is there and blank, such as `truncate` makes it. Nothing is
/// left behind by a size that cannot be.
pub(super) fn file_length(path: &Path, sizes: Sizes) -> Result<u64, DiskError> {
    let there = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let size = sizes.disk.or((there > 0).then_some(there)).unwrap_or(FILE_BYTES_DEFAULT);
    layout::layout(size, sizes.slot, sizes.slots)?;
    Ok(size)
}

/// Makes a disk's file as long as it is to be.
pub(super) fn extend(path: &Path, length: u64) -> Result<(), DiskError> {
    let file = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length));
    file.map_err(|source| DiskError::Io { operation: "extend", path: path.to_owned(), source })
}

/// Whether the disk was begun and not finished.
pub(super) fn is_unfinished(path: &Path) -> bool {
    let marked = |file| device::length(path).is_ok_and(|length| is_marked(&file, length));
    super::is_block_device(path).is_ok() && File::open(path).is_ok_and(marked)
}

/// Marks the disk, durably, before anything else is written.
pub(super) fn mark(path: &Path) -> Result<(), DiskError> {
    let mut block = [0; BLOCK];
    block[..MARK.len()].copy_from_slice(MARK);
    write(path, &block)
}

/// Takes the mark away, durably, when everything is there.
pub(super) fn unmark(path: &Path) -> Result<(), DiskError> {
    write(path, &[0; BLOCK])
}

fn write(path: &Path, block: &[u8; BLOCK]) -> Result<(), DiskError> {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|file| file.write_all_at(block, MARK_AT).and_then(|()| file.sync_all()));
    written.map_err(|source| DiskError::Io { operation: "write", path: path.to_owned(), source })
}

fn is_marked(file: &File, length: u64) -> bool {
    let mut found = [0; MARK.len()];
    length > MARK_AT + BLOCK as u64 && file.read_exact_at(&mut found, MARK_AT).is_ok() && found == *MARK
}

/// Whether the places where disks and file systems say what they are hold nothing: also where the first partition of
/// nearly every disk begins, which is there still when both copies of the partition table are lost.
fn is_blank(file: &File, length: u64) -> io::Result<bool> {
    let mut buffer = vec![0; usize::try_from(length.min(2 * MIB)).expect("at most 2 MiB")];
    for offset in [0, length - buffer.len() as u64] {
        file.read_exact_at(&mut buffer, offset)?;
        if buffer.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
