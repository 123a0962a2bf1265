//! Which of the machine's own changes are in conflict with a new image.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::{
    erofs_read::{Entry, ErofsReadError, read_entry},
    own_changes::{FOLDERS, is_conflict},
};
use nix::libc;

use crate::disk::{SlotRegion, Window};

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
    let in_image = |slot: &Window, path: &Path| {
        let read = |at: u64, buffer: &mut [u8]| slot.read_at(at, buffer);
        read_entry(&read, path.as_os_str().as_bytes(), COMPARED_MAX)
            .map_err(|source| OwnChangesError::Image { path: path.to_owned(), source })
    };
    let mut found = Vec::new();
    each_change(overlays, |there, path| {
        let (before, after) = (in_image(&before, path)?, in_image(&after, path)?);
        // Most are of no image at all, and then nothing of the machine's is read.
        if before == after {
            return Ok(());
        }
        match own(there) {
            Ok(own) if is_conflict(own.as_ref(), before.as_ref(), after.as_ref()) => {
                found.push(path.to_owned());
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OwnChangesError::Read { path: there.to_owned(), source });
            }
            _ => {}
        }
        Ok(())
    })?;
    found.sort();
    Ok(found)
}

/// Gives every path that the machine changed: where it lies, and where it is seen.
fn each_change(
    overlays: &Path,
    mut look: impl FnMut(&Path, &Path) -> Result<(), OwnChangesError>,
) -> Result<(), OwnChangesError> {
    let mut left = CHANGES_MAX;
    for name in FOLDERS {
        let mut folders = vec![(overlays.join(name).join("upper"), Path::new("/").join(name))];
        while let Some((folder, seen)) = folders.pop() {
            let failed = |source| OwnChangesError::Read { path: folder.clone(), source };
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Some(fewer) = left.checked_sub(1) else {
                    tracing::warn!("only the first {CHANGES_MAX} of the machine's own changes are looked at");
                    return Ok(());
                };
                left = fewer;
                let (there, seen) = (entry.path(), seen.join(entry.file_name()));
                look(&there, &seen)?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push((there, seen));
                }
            }
        }
    }
    Ok(())
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
    } else if kind.is_file() {
        file(path)?
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        return Ok(None);
    } else {
        Entry::Special
    }))
}

/// Reads a file that may become something else at any moment: pods write there.
fn file(path: &Path) -> io::Result<Entry> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Entry::Special);
    }
    let mut content = Vec::new();
    file.take(COMPARED_MAX + 1).read_to_end(&mut content)?;
    let whole = content.len() as u64 <= COMPARED_MAX;
    Ok(if whole { Entry::File(content) } else { Entry::LargeFile(metadata.len()) })
}
