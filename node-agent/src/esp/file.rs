//! The partition of a disk's file, which others of the agent's commands may use meanwhile: claimed for each call, as the kernel
//! has it for the partition of a device, so that no call sees or changes what another one has half done.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use super::{Esp, EspFile, FatEsp};
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

    fn reach(&self, access: Access) -> io::Result<FatEsp> {
        Ok(FatEsp::on(self.partition.open_claimed(access, PATIENCE)?))
    }
}

impl Esp for FileEsp {
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool> {
        self.reach(Access::ReadAlone)?.read(path, sink)
    }

    fn write(&self, path: &str, source: &mut dyn Read) -> io::Result<()> {
        self.reach(Access::Write)?.write(path, source)
    }

    fn overwrite(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.reach(Access::Write)?.overwrite(path, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.reach(Access::Write)?.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.reach(Access::Write)?.remove(path)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>> {
        self.reach(Access::ReadAlone)?.list(folder)
    }

    fn reclaim(&self) -> io::Result<()> {
        self.reach(Access::Write)?.reclaim()
    }

    fn free(&self) -> io::Result<u64> {
        self.reach(Access::ReadAlone)?.free()
    }
}
