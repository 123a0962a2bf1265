//! The partition through the kernel's vfat driver, mounted where nobody else looks: for one that others have mounted.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::syncfs,
};

use super::{Esp, EspFile};

/// Where mount points are made: a host's root is read-only, and a container's may have no `/tmp`.
pub(super) const MOUNT_POINTS: &str = "/run/evenkeel";

/// The partition, mounted until this is dropped.
pub(super) struct VfatEsp {
    folder: Option<tempfile::TempDir>,
    root: PathBuf,
}

impl VfatEsp {
    /// Mounts the partition's device.
    pub(super) fn mount(device: &Path) -> io::Result<Self> {
        Self::mount_with(device, MsFlags::empty())
    }

    /// The same where the kernel has it for reading only.
    pub(super) fn mount_read_only(device: &Path) -> io::Result<Self> {
        Self::mount_with(device, MsFlags::MS_RDONLY)
    }

    fn mount_with(device: &Path, more: MsFlags) -> io::Result<Self> {
        fs::create_dir_all(MOUNT_POINTS)?;
        let folder = tempfile::Builder::new().prefix("esp-").tempdir_in(MOUNT_POINTS)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | more;
        mount(Some(device), folder.path(), Some("vfat"), flags, Some("umask=0077"))?;
        Ok(Self { root: folder.path().to_owned(), folder: Some(folder) })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(syncfs(File::open(&self.root)?)?)
    }
}

impl Drop for VfatEsp {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.root, MntFlags::MNT_DETACH) {
            tracing::warn!(%error, path = %self.root.display(), "cannot unmount the boot partition");
            // Removing the folder now would remove the partition's files.
            std::mem::forget(self.folder.take());
        }
    }
}

impl Esp for VfatEsp {
    fn read(&self, path: &str, sink: &mut dyn Write) -> io::Result<bool> {
        let Some(mut file) = found(File::open(self.root.join(path)))? else { return Ok(false) };
        io::copy(&mut file, sink)?;
        Ok(true)
    }

    fn write(&self, path: &str, source: &mut dyn Read) -> io::Result<()> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&path)?;
        io::copy(source, &mut file)?;
        file.sync_all()?;
        self.sync()
    }

    fn overwrite(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = File::options().write(true).open(self.root.join(path))?;
        if file.metadata()?.len() != bytes.len() as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has another length"));
        }
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        self.sync()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))?;
        self.sync()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        found(fs::remove_file(self.root.join(path)))?;
        self.sync()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<EspFile>> {
        let Some(listing) = found(fs::read_dir(self.root.join(folder)))? else { return Ok(Vec::new()) };
        let mut files = Vec::new();
        for entry in listing {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push(EspFile {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    length: metadata.len(),
                });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Nothing: that is for a checker of file systems.
    fn reclaim(&self) -> io::Result<()> {
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        let stats = nix::sys::statvfs::statvfs(&self.root)?;
        Ok(stats.blocks_available() * stats.fragment_size())
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
