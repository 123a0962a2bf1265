//! Tells the kernel of a new partition table: by reading it, or one partition after the other where the kernel cannot read
//! it (a loop device without partitions, a kernel without GPT).

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::libc::{c_char, c_int, c_longlong, c_void};

use super::{Access, DiskError, Partition, Window, claim::OTHERS_LOOK, device, table};

const ASK_AGAIN: Duration = Duration::from_millis(100);

/// `linux/blkpg.h`.
const ADD: c_int = 1;
const DELETE: c_int = 2;
const RESIZE: c_int = 3;
const NAME_LENGTH: usize = 64;

#[repr(C)]
struct BlkpgArg {
    op: c_int,
    flags: c_int,
    length: c_int,
    data: *mut c_void,
}

#[repr(C)]
struct BlkpgPartition {
    start: c_longlong,
    length: c_longlong,
    number: c_int,
    device_name: [c_char; NAME_LENGTH],
    volume_name: [c_char; NAME_LENGTH],
}

nix::ioctl_none_bad!(
    /// Asks the kernel to read the partition table again.
    blkrrpart,
    nix::request_code_none!(0x12, 95)
);

nix::ioctl_write_ptr_bad!(
    /// Adds, removes or resizes a partition.
    blkpg,
    nix::request_code_none!(0x12, 105),
    BlkpgArg
);

/// Makes the kernel know exactly the partitions of the table. One that is held open for a moment is waited for.
pub(super) fn tell(path: &Path) -> Result<(), DiskError> {
    let end = Instant::now() + OTHERS_LOOK;
    loop {
        match try_to_tell(path) {
            Err(DiskError::Io { source, .. })
                if source.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end =>
            {
                thread::sleep(ASK_AGAIN);
            }
            told => return told,
        }
    }
}

fn try_to_tell(path: &Path) -> Result<(), DiskError> {
    let failed = |source| DiskError::Io {
        operation: "tell the kernel of the partitions of",
        path: path.to_owned(),
        source,
    };
    let device = super::open(path, None, Access::Read).and_then(Window::whole).map_err(failed)?;
    let entries = table::read(path, &device, table::block_size(path)?)?;
    let file = File::open(path).map_err(failed)?;
    // SAFETY: BLKRRPART takes no argument and the descriptor is open for the length of the call.
    let read = unsafe { blkrrpart(file.as_raw_fd()) };
    if read.is_ok() && entries.iter().all(|entry| device::partition_node(path, entry.disk_offset).is_ok()) {
        return Ok(());
    }
    for number in device::partition_numbers(path)? {
        change(&file, DELETE, number, 0, 0).map_err(failed)?;
    }
    for (number, entry) in (1..).zip(&entries) {
        change(&file, ADD, number, entry.disk_offset, entry.length).map_err(failed)?;
    }
    Ok(())
}

/// Makes the kernel know a partition's new length. It may be mounted.
pub(super) fn resize(disk: &Path, partition: &Partition) -> Result<(), DiskError> {
    let failed = |source| DiskError::Io {
        operation: "tell the kernel of a partition that grew on",
        path: disk.to_owned(),
        source,
    };
    let number = device::partition_number(&partition.path)?;
    let file = File::open(disk).map_err(failed)?;
    change(&file, RESIZE, number, partition.disk_offset, partition.length).map_err(failed)
}

fn change(disk: &File, op: c_int, number: c_int, start: u64, length: u64) -> io::Result<()> {
    let bytes = |value: u64| c_longlong::try_from(value).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: bytes(start)?,
        length: bytes(length)?,
        number,
        device_name: [0; NAME_LENGTH],
        volume_name: [0; NAME_LENGTH],
    };
    let size = c_int::try_from(size_of::<BlkpgPartition>()).map_err(io::Error::other)?;
    let argument = BlkpgArg { op, flags: 0, length: size, data: (&raw mut partition).cast() };
    // SAFETY: both structures are those of linux/blkpg.h and live for the length of the call, as does the descriptor.
    unsafe { blkpg(disk.as_raw_fd(), &raw const argument) }?;
    Ok(())
}
