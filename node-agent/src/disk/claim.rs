//! A disk that one program makes, installs or mends, from its first byte to its last: of two at once each would believe what
//! the other has changed meanwhile, such as the partitions that its boot entries name. udev looks away too: partitions that it holds
//! open cannot be changed.

use std::{fs::OpenOptions, io, path::Path, sync::Arc, time::Duration};

use evenkeel_node_agent_core::layout::MIB;

use super::{Access, DiskError, FileDevice, is_block_device};

/// What stands for the disk: its partition table, which no claim of a partition has.
const TABLE: u64 = MIB;
/// To the end of a file, wherever that will be.
const REST: u64 = 0;

/// udev looks into a disk and each of its partitions when it comes, and when it was written; a machine with little time of its
/// processor takes seconds for that. Whoever really uses a partition was found before.
pub(super) const OTHERS_LOOK: Duration = Duration::from_secs(20);

/// A disk that nobody else makes, installs or mends until this and all its copies are dropped.
#[derive(Clone, Debug)]
pub struct Claim {
    _device: Arc<FileDevice>,
}

impl Claim {
    /// Claims a disk that is there.
    pub fn take(path: &Path) -> Result<Self, DiskError> {
        let device = FileDevice::open(path, Access::WriteShared).map_err(|error| failed(path, error))?;
        device
            .claim(0, TABLE)
            .and_then(|()| device.lock_out_udev(OTHERS_LOOK))
            .map_err(|error| failed(path, error))?;
        Ok(Self { _device: Arc::new(device) })
    }

    /// Claims what is to become a disk, and makes its file if there is none. A file of which another program writes a part
    /// is refused, as the kernel does with a device.
    pub(super) fn take_to_make(path: &Path) -> Result<Self, DiskError> {
        if path.exists() && is_block_device(path)? {
            return Self::take(path);
        }
        let mut options = OpenOptions::new();
        let made = options.read(true).write(true).create(true).truncate(false).open(path);
        made.map_err(|source| DiskError::Io { operation: "create", path: path.to_owned(), source })?;
        let device = FileDevice::open(path, Access::WriteShared).map_err(|error| failed(path, error))?;
        device
            .claim(0, REST)
            .and_then(|()| device.release(TABLE, REST))
            .map_err(|error| failed(path, error))?;
        Ok(Self { _device: Arc::new(device) })
    }
}

fn failed(path: &Path, source: io::Error) -> DiskError {
    if source.kind() == io::ErrorKind::ResourceBusy {
        return DiskError::Claimed(path.to_owned());
    }
    DiskError::Io { operation: "open", path: path.to_owned(), source }
}
