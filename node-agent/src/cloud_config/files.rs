//! Files and folders: what is as it should be is not written.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::cloud_config;

use super::{CloudConfigError, Machine};

const MODE_MAX: u32 = 0o7777;

/// User and group; absent: those of whoever makes it.
pub(super) type Owner = (Option<u32>, Option<u32>);

pub(super) fn directory(
    machine: &Machine,
    directory: &cloud_config::Directory,
) -> Result<(), CloudConfigError> {
    let path = machine.at(&directory.path);
    let mode = directory.mode().map_err(CloudConfigError::Impossible)?;
    make_directory(&path, mode, (directory.owner, directory.group))
        .map_err(CloudConfigError::io("make", &path))
}

pub(super) fn make_directory(path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    chown(path, owner.0, owner.1)
}

pub(super) fn file(
    machine: &Machine,
    file: &cloud_config::File,
    written: &mut Vec<PathBuf>,
) -> Result<(), CloudConfigError> {
    let bytes = file.bytes().map_err(CloudConfigError::Impossible)?;
    let mode = file.mode().map_err(CloudConfigError::Impossible)?;
    write(machine, &file.path, &bytes, mode, (file.owner, file.group), written)
}

/// Makes the file at `path` of the machine what is given, and notes that if it was not so before.
pub(super) fn write(
    machine: &Machine,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Owner,
    written: &mut Vec<PathBuf>,
) -> Result<(), CloudConfigError> {
    let there = machine.at(path);
    if replace(&there, bytes, mode, owner).map_err(CloudConfigError::io("write", &there))? {
        written.push(path.to_owned());
    }
    Ok(())
}

/// Whether the file had to be written. After a power cut it is the old one or the new one.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32, owner: Owner) -> io::Result<bool> {
    let same = fs::symlink_metadata(path).is_ok_and(|there| {
        there.is_file()
            && there.permissions().mode() & MODE_MAX == mode
            && owner.0.is_none_or(|owner| owner == there.uid())
            && owner.1.is_none_or(|group| group == there.gid())
    });
    if same && fs::read(path).is_ok_and(|there| there == content) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(content)?;
    chown(new.path(), owner.0, owner.1)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}
