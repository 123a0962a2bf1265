//! A partition's place on its disk.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use super::{Access, BlockDevice, FileDevice, Window, open};

/// One of the disk's partitions.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Name in the partition table.
    pub name: String,
    /// GUID, lower-case.
    pub part_uuid: String,
    /// Bytes from the start of the disk.
    pub disk_offset: u64,
    /// Bytes.
    pub length: u64,
    /// The file to open: the disk file itself, or the partition's device node.
    pub path: PathBuf,
    /// What is used in place of `path`, where a device was given and not a path.
    pub device: Option<Arc<dyn BlockDevice>>,
    /// Bytes from the start of `path`; 0 for a device node.
    pub offset: u64,
}

impl Partition {
    /// Opens it. Places are bytes from the partition's start.
    pub fn open(&self, access: Access) -> io::Result<Window> {
        Ok(Window::new(open(&self.path, self.device.as_ref(), access)?, self.offset, self.length))
    }

    /// The same for a partition of a disk's file, alone with those who claim it in the same way: waits for so long for others.
    pub fn open_claimed(&self, access: Access, patience: Duration) -> io::Result<Window> {
        let file = FileDevice::open(&self.path, access)?;
        file.claim_within(access, self.offset, self.length, patience)?;
        Ok(Window::new(Arc::new(file), self.offset, self.length))
    }

    /// Whether the partition is a device of its own, so that the kernel can mount it.
    pub fn is_device(&self) -> bool {
        self.offset == 0 && self.disk_offset != 0
    }
}
