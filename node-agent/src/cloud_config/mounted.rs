//! A file system that is mounted for no longer than it is read or written.

use std::{fs, io, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

const MOUNT_POINTS: &str = "/run/evenkeel";

/// Mounts a device where nobody else looks, so that nothing on it is written, run or taken for a device, and gives its
/// folder to `work`. `name` is what the folder is called by.
pub(super) fn with<T>(device: &Path, kind: &str, name: &str, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
    mounted(device, kind, name, MsFlags::MS_RDONLY, work)
}

/// The same, to be written.
pub(super) fn to_write<T>(
    device: &Path,
    kind: &str,
    name: &str,
    work: impl FnOnce(&Path) -> T,
) -> io::Result<T> {
    mounted(device, kind, name, MsFlags::empty(), work)
}

fn mounted<T>(
    device: &Path,
    kind: &str,
    name: &str,
    flags: MsFlags,
    work: impl FnOnce(&Path) -> T,
) -> io::Result<T> {
    fs::create_dir_all(MOUNT_POINTS)?;
    let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(MOUNT_POINTS)?;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(device), folder.path(), Some(kind), flags, None::<&str>)?;
    let outcome = work(folder.path());
    umount2(folder.path(), MntFlags::MNT_DETACH)?;
    Ok(outcome)
}
