//! A machine whose disk became larger uses all of it: table, kernel, and the file system of the state partition while it is
//! mounted. What was cut off is gone on with at the next boot.

mod mounted;

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::{
    growth::{Ext4, SUPERBLOCK_AT, SUPERBLOCK_BYTES},
    layout::Role,
};

use crate::{
    causes::with_causes,
    disk::{Disk, DiskError, Partition, TableGrowth},
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    /// What was done with the partition table.
    pub table: TableGrowth,
    /// Bytes of the state partition.
    pub partition: u64,
    /// What was done with its file system.
    pub file_system: FileSystem,
}

/// What was done with a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Bytes before and after.
    Grown(u64, u64),
    /// It has the whole partition already.
    Whole,
    /// The kernel grows only what is mounted, and for writing.
    NotMounted,
}

/// Why a disk could not be used to its end.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The disk or its table.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file or device could not be read.
    #[error("{operation} {path}: check the disk")]
    Io {
        /// `read`, …
        operation: &'static str,
        /// The file or device.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a file system that an installation made.
    #[error("the state partition {0} holds no ext4 file system: see `evenkeel-agent doctor`")]
    NoFileSystem(PathBuf),
    /// The kernel does not grow the file system.
    #[error(
        "grow the file system of {path} to {blocks} blocks: the kernel's log says why it refused; it does so to a process \
         without CAP_SYS_RESOURCE, and for a file system in which it has found errors"
    )]
    Resize {
        /// The partition.
        path: PathBuf,
        /// Blocks of the file system.
        blocks: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

nix::ioctl_write_ptr!(
    /// Grows a mounted ext4 to so many of its blocks (Linux, `EXT4_IOC_RESIZE_FS` in `uapi/linux/ext4.h`).
    resize_fs,
    b'f',
    16,
    u64
);

/// Uses all of the disk at `path`. Safe to repeat at any time; nothing ever becomes smaller. `proc` is where the kernel tells
/// of mounts.
pub fn grow(path: &Path, proc: &Path) -> Result<Grown, GrowError> {
    let table = Disk::grow_table(path)?;
    let disk = Disk::open(path)?;
    let state = disk.partition(Role::State)?;
    let file_system = if table == TableGrowth::NotLast {
        FileSystem::Whole
    } else {
        disk.tell_kernel_of_state()?;
        grow_file_system(state, proc)?
    };
    Ok(Grown { table, partition: state.length, file_system })
}

/// The same at boot, where a failure is told and the boot goes on. A system without its state, such as the recovery slot's,
/// leaves the disk alone.
pub fn at_boot(disk: &Disk, proc: &Path) {
    let grown = disk.partition(Role::State).map_err(GrowError::from).and_then(|state| {
        let is_mounted = mounted::open(state, proc)?.is_some();
        if is_mounted { grow(disk.path(), proc).map(Some) } else { Ok(None) }
    });
    match grown {
        Ok(Some(Grown { file_system: FileSystem::Grown(before, after), .. })) => {
            tracing::info!(before, after, "the disk became larger, and the state's file system with it");
        }
        Ok(Some(Grown { table: TableGrowth::Written, .. })) => {
            tracing::info!("the partition table was written for the whole disk");
        }
        Ok(_) => {}
        Err(error) => {
            let error = with_causes(&error.into());
            tracing::error!(error, "the disk is not used to its end");
        }
    }
}

fn grow_file_system(state: &Partition, proc: &Path) -> Result<FileSystem, GrowError> {
    let Some(place) = mounted::open(state, proc)? else { return Ok(FileSystem::NotMounted) };
    let before = superblock(state)?;
    let Some(blocks) = before.growth(state.length) else { return Ok(FileSystem::Whole) };
    let failed = |source: io::Error| GrowError::Resize { path: state.path.clone(), blocks, source };
    // SAFETY: the kernel reads eight bytes, which live for the length of the call, as does the descriptor.
    unsafe { resize_fs(place.as_raw_fd(), &raw const blocks) }.map_err(|error| failed(error.into()))?;
    // The kernel leaves out a last group in which there is no room for its own tables.
    let (before, after) = (before.blocks, superblock(state)?.blocks);
    if after == before {
        return Ok(FileSystem::Whole);
    }
    place.sync_all().map_err(failed)?;
    Ok(FileSystem::Grown(before.count * before.size, after.count * after.size))
}

/// As the kernel has it, which may not be on the disk yet.
fn superblock(state: &Partition) -> Result<Ext4, GrowError> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    let file = File::open(&state.path);
    file.and_then(|file| file.read_exact_at(&mut bytes, state.offset + SUPERBLOCK_AT)).map_err(|source| {
        GrowError::Io { operation: "read the file system of", path: state.path.clone(), source }
    })?;
    Ext4::parse(&bytes).ok_or_else(|| GrowError::NoFileSystem(state.path.clone()))
}
