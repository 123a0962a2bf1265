//! What may become a disk of ours, and one that was begun and not finished.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use evenkeel_node_agent_core::layout::MIB;
use nix::libc;

use super::{DiskError, device};

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
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("open", error)),
    };
    let mut options = OpenOptions::new();
    options.read(true);
    if found.file_type().is_block_device() {
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

/// Whether the disk was begun and not finished.
pub(super) fn is_unfinished(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| device::length(path).is_ok_and(|length| is_marked(&file, length)))
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
