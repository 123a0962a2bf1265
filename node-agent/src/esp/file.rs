//! The partition of a disk's file, which others of the agent's commands may use meanwhile: claimed for each call, as the kernel
//! has it for the partition of a device, so that no call sees or changes what another one has half done.

use std::{io, time::Duration};

use super::{Esp, FatEsp, each_call::EachCall};
use crate::disk::{Access, Partition};

/// Each call of others takes some seconds at most.
const PATIENCE: Duration = Duration::from_mins(1);

/// The partition, opened for each call.
pub(super) struct FileEsp {
    partition: Partition,
}

impl FileEsp {
    /// Fails where it cannot be read. Looking at a disk needs no more than the right to do that.
    pub(super) fn new(partition: Partition) -> io::Result<Self> {
        partition.open(Access::Read)?;
        Ok(Self { partition })
    }
}

impl EachCall for FileEsp {
    fn reach(&self, access: Access) -> io::Result<Box<dyn Esp>> {
        Ok(Box::new(FatEsp::on(self.partition.open_claimed(access, PATIENCE)?)))
    }
}
