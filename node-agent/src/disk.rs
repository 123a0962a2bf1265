//! A disk with Evenkeel's layout: a regular file or a block device.
//!
//! Partitions are found by their names in the partition table of this one disk; labels are never searched for.

pub mod aligned;
mod bios;
mod block_device;
mod claim;
mod device;
mod file_device;
mod fresh;
mod grow;
mod kernel_table;
pub mod mkfs;
mod partition;
pub mod region;
mod running;
mod table;

use std::{
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use evenkeel_node_agent_core::{
    layout::{self, LayoutError, Role},
    partition_table::TableError,
};
use gpt::disk::LogicalBlockSize;

pub use bios::{BiosError, NoBiosPlace};
pub use block_device::{BlockDevice, Cursor, Window};
pub use claim::Claim;
pub use file_device::{Access, FileDevice};
pub use grow::TableGrowth;
pub use partition::Partition;
pub use region::{RegionError, SlotRegion};
pub use running::find as find_running;
pub use table::MendedTable;

/// Sizes of a disk that is made.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the disk; absent: all of a device, or of a blank file that is there.
    pub disk: Option<u64>,
    /// Bytes of each slot; absent: by the disk's size.
    pub slot: Option<u64>,
    /// Number of slots.
    pub slots: u8,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    partitions: Vec<Partition>,
    /// While it is made or installed.
    _claim: Option<Claim>,
}

/// Why a disk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The disk did not answer.
    #[error("{operation} {path}: check that the disk is there and that this user may use it")]
    Io {
        /// `open`, `read`, …
        operation: &'static str,
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No partition table, or a damaged one.
    #[error(
        "{path} has no GPT partition table that can be read: prepare the disk with `evenkeel-agent disk create`"
    )]
    NoTable {
        /// The disk.
        path: PathBuf,
        /// What is wrong with it.
        source: gpt::GptError,
    },
    /// The table is damaged, or has no place on the disk.
    #[error("{path}: check that this is the whole disk, and see `evenkeel-agent disk mend`")]
    Table {
        /// The disk.
        path: PathBuf,
        /// What is wrong.
        source: TableError,
    },
    /// The table could not be written.
    #[error("write the partition table of {path}: check the disk")]
    WriteTable {
        /// The disk.
        path: PathBuf,
        /// What is wrong.
        source: gpt::GptError,
    },
    /// Not our layout.
    #[error("{path} has no partition {name}: it was not made by `evenkeel-agent disk create`")]
    NoPartition {
        /// The disk.
        path: PathBuf,
        /// The partition's name.
        name: String,
    },
    /// The table names a partition that the kernel does not know.
    #[error(
        "the kernel does not know the partition of {path} that starts at byte {disk_offset}: run `partprobe`, or reboot"
    )]
    NoNode {
        /// The disk.
        path: PathBuf,
        /// Bytes from the start of the disk.
        disk_offset: u64,
    },
    /// A slot could not be emptied.
    #[error(transparent)]
    Region(#[from] Box<RegionError>),
    /// The layout does not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is something on the disk already.
    #[error("{0} is not empty: choose another disk or file, or say --force if nothing on it is needed")]
    Exists(PathBuf),
    /// Somebody uses it.
    #[error("{0} is in use, it or a part of it: unmount it first, or choose another disk")]
    InUse(PathBuf),
    /// Another program of ours works on it.
    #[error("another program is making, installing or mending {0}: wait until it has ended")]
    Claimed(PathBuf),
    /// Something that holds no bytes, or not by their place.
    #[error(
        "{0} is neither a file nor a disk: name a whole disk, such as /dev/nvme0n1, or a file that holds one"
    )]
    NoDisk(PathBuf),
    /// A part of a disk.
    #[error("{0} is a partition: name the whole disk")]
    Partition(PathBuf),
    /// A program is missing or failed.
    #[error(transparent)]
    Mkfs(#[from] mkfs::MkfsError),
    /// The running machine has no disk of ours.
    #[error("{0}: name the disk with --disk")]
    NotRunning(&'static str),
    /// What this machine runs from is unknown.
    #[error(
        "read {path}, which says what this machine runs from: mount the host's /proc here (`mount -t proc proc /proc`), or \
         name the disk with --disk"
    )]
    NoProc {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The disk that is named, or the one that this machine runs from.
pub fn open_or_find(named: Option<&Path>, proc: &Path) -> Result<Disk, DiskError> {
    match named {
        Some(path) => Disk::open(path),
        None => find_running(proc),
    }
}

/// The devices that may hold something for a machine whose own disk is `own`: other disks, and their partitions.
pub fn other_devices(own: &Path) -> Result<Vec<PathBuf>, DiskError> {
    device::others(own)
}

impl Disk {
    /// Opens a disk that was made by [`Disk::create`].
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let io_error = |source| DiskError::Io { operation: "open", path: path.to_owned(), source };
        let block = is_block_device(path)?;
        let device = open(path, None, Access::Read).and_then(Window::whole).map_err(io_error)?;
        let node = |disk_offset| device::partition_node(path, disk_offset).map(|node| (node, 0));
        let in_file = |disk_offset| Ok((path.to_owned(), disk_offset));
        let found = table::read(path, &device, table::block_size(path)?)?;
        let place = |offset| if block { node(offset) } else { in_file(offset) };
        Self::with(path, found, None, place)
    }

    /// The same, of a disk that nobody else makes, installs or mends as long as this is there.
    pub fn open_alone(path: &Path) -> Result<Self, DiskError> {
        Ok(Self { _claim: Some(Claim::take(path)?), ..Self::open(path)? })
    }

    /// Uses a device with the layout of [`Disk::create`] that somebody has opened: with 512-byte sectors, and with its
    /// boot partition read and written by a library. `name` is what errors call it.
    pub fn on(device: &Arc<dyn BlockDevice>, name: &Path) -> Result<Self, DiskError> {
        let io_error = |source| DiskError::Io { operation: "open", path: name.to_owned(), source };
        let window = Window::whole(device.clone()).map_err(io_error)?;
        let found = table::read(name, &window, LogicalBlockSize::Lb512)?;
        Self::with(name, found, Some(device), |offset| Ok((name.to_owned(), offset)))
    }

    fn with(
        path: &Path,
        found: Vec<table::Entry>,
        device: Option<&Arc<dyn BlockDevice>>,
        place: impl Fn(u64) -> Result<(PathBuf, u64), DiskError>,
    ) -> Result<Self, DiskError> {
        let mut partitions = Vec::with_capacity(found.len());
        for table::Entry { name, part_uuid, disk_offset, length } in found {
            let (node, offset) = place(disk_offset)?;
            let device = device.cloned();
            partitions.push(Partition { name, part_uuid, disk_offset, length, path: node, device, offset });
        }
        Ok(Self { path: path.to_owned(), partitions, _claim: None })
    }

    /// Makes a disk: the file (of 8 GiB unless given) if `path` is not a device, the partition table, and an empty
    /// state file system. What is on it is lost if `overwrite` says so; else it must be blank, or a disk that was begun
    /// before. Until [`Disk::finish`] it counts as one that was begun. Nobody else may make it as long as this is there.
    pub fn create(path: &Path, sizes: Sizes, overwrite: bool) -> Result<Self, DiskError> {
        let Sizes { disk: size, slot: slot_size, slots } = sizes;
        fresh::check(path, overwrite)?;
        let block = path.exists() && is_block_device(path)?;
        let wanted = if block { None } else { Some(fresh::file_length(path, sizes)?) };
        let claim = Claim::take_to_make(path)?;
        // Whoever had it before may have finished it meanwhile.
        fresh::check(path, overwrite)?;
        wanted.map_or(Ok(()), |length| fresh::extend(path, length))?;
        let length = device::length(path)?;
        let length = size.map_or(length, |size| size.min(length));
        let mut layout = layout::layout(length, slot_size, slots)?;
        if table::block_size(path)?.as_u64() == layout::BIOS_BLOCK {
            layout.push(layout::BIOS);
        }
        fresh::mark(path)?;
        table::write(path, &layout)?;
        if block {
            kernel_table::tell(path)?;
        }
        let disk = Self { _claim: Some(claim), ..Self::open(path)? };
        for name in disk.slot_names().chain([layout::RECOVERY_SLOT]) {
            // What lay there before is not what an update may take for an image.
            disk.slot(name)?.wipe_record().map_err(Box::new)?;
        }
        disk.forget_bios_code()?;
        mkfs::ext4(disk.partition(Role::State)?, "ek-state", None)?;
        Ok(disk)
    }

    /// The same disk, which others may make, install or mend from now on.
    #[must_use]
    pub fn unclaimed(self) -> Self {
        Self { _claim: None, ..self }
    }

    /// Says, durably, that the disk has all its file systems.
    pub fn finish(&self) -> Result<(), DiskError> {
        fresh::unmark(&self.path)
    }

    /// Whether making the disk was begun and not finished.
    pub fn is_unfinished(path: &Path) -> bool {
        fresh::is_unfinished(path)
    }

    /// Writes again what the partition table of a disk of ours has lost, by the copy that is left. Gives what that was.
    pub fn mend_table(path: &Path) -> Result<MendedTable, DiskError> {
        let size = table::block_size(path)?;
        let device = open(path, None, Access::Read).and_then(Window::whole);
        let device =
            device.map_err(|source| DiskError::Io { operation: "open", path: path.to_owned(), source })?;
        let entries = table::read(path, &device, size)?;
        // Another disk's is not ours to mend.
        for name in [Role::Esp.partition_name(), Role::Slot(0).partition_name()] {
            if !entries.iter().any(|entry| entry.name == name) {
                return Err(DiskError::NoPartition { path: path.to_owned(), name: name.to_owned() });
            }
        }
        let mended = table::mend(path, size)?;
        let unknown = |entry: &table::Entry| device::partition_node(path, entry.disk_offset).is_err();
        if is_block_device(path)? && entries.iter().any(unknown) {
            kernel_table::tell(path)?;
        }
        Ok(mended)
    }

    /// What the disk has lost of its partition table, in words.
    pub fn lost_of_table(&self) -> io::Result<Vec<&'static str>> {
        let size = table::block_size(&self.path).map_err(io::Error::other)?;
        let device = open(&self.path, None, Access::Read).and_then(Window::whole)?;
        let mut lost = table::Copies::read(&device, size)?.lost();
        // The copy of a disk that became larger is in the middle of it, where nobody looks.
        if self.unused().is_ok_and(|(_, has_outgrown)| has_outgrown) {
            lost.retain(|name| *name != table::SECOND);
        }
        Ok(lost)
    }

    /// Bytes of a block of the disk.
    pub fn block_size(&self) -> Result<u64, DiskError> {
        if self.partitions.iter().any(|partition| partition.device.is_some()) {
            return Ok(LogicalBlockSize::Lb512.as_u64());
        }
        Ok(table::block_size(&self.path)?.as_u64())
    }

    /// Bytes of the disk.
    pub fn length(&self) -> Result<u64, DiskError> {
        let device = self.partitions.iter().find_map(|partition| partition.device.as_ref());
        let length = open(&self.path, device, Access::Read).and_then(|device| device.length());
        length.map_err(|source| DiskError::Io { operation: "open", path: self.path.clone(), source })
    }

    /// The disk's file or device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the slots that updates write, in their order on the disk.
    pub fn slot_names(&self) -> impl Iterator<Item = &str> {
        self.partitions.iter().filter_map(|partition| layout::slot_name(&partition.name))
    }

    /// The slot `a`, `b`, … or `recovery`.
    pub fn slot(&self, name: &str) -> Result<SlotRegion, DiskError> {
        let partition = self.named(&format!("evenkeel-{name}"))?;
        Ok(SlotRegion {
            name: name.to_owned(),
            path: partition.path.clone(),
            device: partition.device.clone(),
            offset: partition.offset,
            length: partition.length,
            disk_offset: partition.disk_offset,
            part_uuid: partition.part_uuid.clone(),
        })
    }

    /// The partition with a role.
    pub fn partition(&self, role: Role) -> Result<&Partition, DiskError> {
        self.named(role.partition_name())
    }

    /// All partitions, in the table's order.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    fn named(&self, name: &str) -> Result<&Partition, DiskError> {
        self.partitions
            .iter()
            .find(|partition| partition.name == name)
            .ok_or_else(|| DiskError::NoPartition { path: self.path.clone(), name: name.to_owned() })
    }
}

/// The device that was given, or else the one at `path`.
fn open(
    path: &Path,
    device: Option<&Arc<dyn BlockDevice>>,
    access: Access,
) -> io::Result<Arc<dyn BlockDevice>> {
    Ok(match device {
        Some(device) => device.clone(),
        None => Arc::new(FileDevice::open(path, access)?),
    })
}

/// Whether a disk is a device, and no file; nothing else can be one.
fn is_block_device(path: &Path) -> Result<bool, DiskError> {
    let found = std::fs::metadata(path);
    let found = found.map_err(|source| DiskError::Io { operation: "open", path: path.to_owned(), source })?;
    let kind = found.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(kind.is_block_device());
    }
    Err(DiskError::NoDisk(path.to_owned()))
}
