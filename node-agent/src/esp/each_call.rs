//! Partitions that others use too: reached for each call, and let go of behind it.

use std::io::{self, Read, Write};

use super::{Esp, EspFile};
use crate::disk::Access;

/// A partition that is opened for each call.
pub(super) trait EachCall {
    /// Opens it, alone with whoever reaches it in the same way.
    fn reach(&self, access: Access) -> io::Result<Box<dyn Esp>>;
}

impl<T: EachCall> Esp for T {
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
