//! A file system that is read, and mounted for no longer than that.

use std::{fs, io, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

const MOUNT_POINTS: &str = "/run/evenkeel";

/// Mounts a device where nobody else looks, so that nothing on it is written, run or taken for a device, and gives its
/// folder to `work`. `name` is what the folder is called by.
pub(super) fn with<T>(device: &Path, kind: &str, name: &str, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
    fs::create_dir_all(MOUNT_POINTS)?;
    let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(MOUNT_POINTS)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(device), folder.path(), Some(kind), flags, None::<&str>)?;
    let outcome = work(folder.path());
    umount2(folder.path(), MntFlags::MNT_DETACH)?;
    Ok(outcome)
}
