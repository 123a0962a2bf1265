//! A FAT file system through a library: nothing of it is mounted, and the kernel need not know the format.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use evenkeel_node_agent_core::cloud_config::{
    DOCUMENT_BYTES_MAX,
    nocloud::{META_DATA, META_DATA_BYTES_MAX, USER_DATA, is_label},
};
use fatfs::{FileSystem, FsOptions};

use super::nocloud::{Files, read_up_to};
use crate::disk::{Access, Cursor, FileDevice, Window};

/// What is read of a file system at most: a chain of clusters that comes back to its beginning has no end.
const BYTES_MAX: u64 = 4 << 20;

/// The two files, if the label is one of the data source.
pub(super) fn files(device: &Path) -> io::Result<Option<Files>> {
    let window = Window::whole(Arc::new(FileDevice::open(device, Access::Read)?))?;
    // A damaged file system is told if it could be ours; another one is not our business.
    let Ok(file_system) =
        FileSystem::new(Bounded { cursor: window.cursor(0), left: BYTES_MAX }, FsOptions::new())
    else {
        return Ok(None);
    };
    let in_folder = file_system.read_volume_label_from_root_dir();
    let labels = [in_folder.ok().flatten(), Some(file_system.volume_label())];
    if !labels.iter().flatten().any(|label| is_label(label)) {
        return Ok(None);
    }
    let file = |name: &str, max| match file_system.root_dir().open_file(name) {
        Ok(file) => read_up_to(max, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let (user_data, meta_data) =
        (file(USER_DATA, DOCUMENT_BYTES_MAX)?, file(META_DATA, META_DATA_BYTES_MAX)?);
    Ok(Some(Files { user_data, meta_data }))
}

/// A reader with an end. The library wants to write too, and has nothing to write here.
struct Bounded {
    cursor: Cursor,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!("more than {} MiB of it would be read", BYTES_MAX >> 20)));
        }
        let end = left.min(buffer.len());
        let count = self.cursor.read(&mut buffer[..end])?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Write for Bounded {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.cursor.seek(to)
    }
}
