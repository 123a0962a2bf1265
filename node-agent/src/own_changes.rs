//! Which of the machine's own changes are in conflict with a new image.

use std::{
    fs, io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::{
    erofs_read::{Entry, ErofsReadError, read_entry},
    own_changes::{FOLDERS, is_conflict},
};

use crate::disk::SlotRegion;

/// Where the initrd keeps the machine's own changes, below the root of the first process.
const OVERLAYS: &str = "1/root/run/evenkeel/state/overlay";
/// Bytes of a file whose content is compared; larger ones differ when their lengths do.
const COMPARED_MAX: u64 = 4 << 20;
/// Own changes that are looked at: `/etc` of a large system has some thousand files.
const CHANGES_MAX: usize = 20_000;

/// Why conflicts could not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum OwnChangesError {
    /// The state partition did not answer.
    #[error("read the machine's own change {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A slot could not be opened.
    #[error("open slot {slot}")]
    Slot {
        /// The slot.
        slot: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A slot's file system could not be read.
    #[error("read {path} of a slot")]
    Image {
        /// The path in the image.
        path: PathBuf,
        /// Why.
        source: ErofsReadError,
    },
}

/// Where the changes of the machine are whose `/proc` this is.
pub fn of_machine(proc: &Path) -> PathBuf {
    proc.join(OVERLAYS)
}

/// The paths that are in conflict, sorted, when what runs from `before` goes over to `after`. None on a machine that keeps no
/// changes in `overlays`.
pub fn conflicts(
    overlays: &Path,
    before: &SlotRegion,
    after: &SlotRegion,
) -> Result<Vec<PathBuf>, OwnChangesError> {
    let open = |region: &SlotRegion| {
        region.open_ro().map_err(|source| OwnChangesError::Slot { slot: region.name.clone(), source })
    };
    let (before, after) = (open(before)?, open(after)?);
    let mut found = Vec::new();
    for (path, own) in changes(overlays)? {
        let read = |read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>| {
            read_entry(read, path.as_os_str().as_bytes(), COMPARED_MAX)
                .map_err(|source| OwnChangesError::Image { path: path.clone(), source })
        };
        let before = read(&|at, buffer: &mut [u8]| before.read_at(at, buffer))?;
        let after = read(&|at, buffer: &mut [u8]| after.read_at(at, buffer))?;
        if is_conflict(own.as_ref(), before.as_ref(), after.as_ref()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Every path that the machine changed, and what it made of it.
fn changes(overlays: &Path) -> Result<Vec<(PathBuf, Option<Entry>)>, OwnChangesError> {
    let mut found = Vec::new();
    for name in FOLDERS {
        let upper = overlays.join(name).join("upper");
        let mut folders = vec![(upper, Path::new("/").join(name))];
        while let Some((folder, path)) = folders.pop() {
            let failed = |source| OwnChangesError::Read { path: folder.clone(), source };
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                if found.len() >= CHANGES_MAX {
                    tracing::warn!("only the first {CHANGES_MAX} of the machine's own changes are looked at");
                    return Ok(found);
                }
                let (there, path) = (entry.path(), path.join(entry.file_name()));
                let own =
                    own(&there).map_err(|source| OwnChangesError::Read { path: there.clone(), source })?;
                if own == Some(Entry::Folder) {
                    folders.push((there, path.clone()));
                }
                found.push((path, own));
            }
        }
    }
    Ok(found)
}

/// What the machine made of a path. A device with the number 0 is how overlayfs keeps that something was removed
/// (`Documentation/filesystems/overlayfs.rst` of Linux).
fn own(path: &Path) -> io::Result<Option<Entry>> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    Ok(Some(if kind.is_dir() {
        Entry::Folder
    } else if kind.is_symlink() {
        Entry::Link(fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_file() && metadata.len() > COMPARED_MAX {
        Entry::LargeFile(metadata.len())
    } else if kind.is_file() {
        Entry::File(fs::read(path)?)
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        return Ok(None);
    } else {
        Entry::Special
    }))
}
