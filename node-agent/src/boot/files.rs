//! Kernel and initrd on the boot partition, named by their content: equal ones are there once, and a file that an entry
//! names is not written again unless it has rotted.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read as _, Write},
};

use evenkeel_node_agent_core::{
    boot_entry::BootEntry,
    digest::hex,
    slot_record::{BootFile, SlotRecord},
};
use sha2::{Digest as _, Sha256};

use super::BootError;
use crate::{
    disk::SlotRegion,
    esp::{Esp, EspFile},
};

pub(super) const FOLDER: &str = "evenkeel";
const UNFINISHED: &str = ".new";
/// Kept free for entries, for folders and for the loader's own renames.
const RESERVE: u64 = 256 << 10;
/// At least as large as the partition's clusters, by which files are rounded up.
const CLUSTER_MAX: u64 = 32 << 10;
/// What an entry takes: itself, and a folder that has to grow for it.
const ENTRY_ROOM: u64 = 2 * CLUSTER_MAX;
const COPY_BUFFER: usize = 1 << 20;
/// Bytes of a file that is held, at most a boot loader or a kernel: several times the largest kernels, and what any machine
/// has for a moment.
const HELD_BYTES_MAX: usize = 128 << 20;

/// Names of a slot's files in the folder.
pub(super) fn names(kernel: &BootFile, initrd: &BootFile) -> (String, String) {
    (name("vmlinuz", kernel), name("initrd", initrd))
}

fn name(kind: &str, file: &BootFile) -> String {
    format!("{kind}-{}", &file.sha256[..file.sha256.len().min(16)])
}

/// Writes the files that are not there as they should be, after a look at whether both fit.
pub(super) fn place(esp: &dyn Esp, slot: &SlotRegion, record: &SlotRecord) -> Result<(), BootError> {
    let missing = missing(esp, &record.kernel, &record.initrd)?;
    missing.into_iter().try_for_each(|(name, file)| copy(esp, slot, file, &name))
}

/// The files that are not there as they should be; an error if they do not fit.
pub(super) fn missing<'a>(
    esp: &dyn Esp,
    kernel: &'a BootFile,
    initrd: &'a BootFile,
) -> Result<Vec<(String, &'a BootFile)>, BootError> {
    let there = esp.list(FOLDER).map_err(|source| failed("list", FOLDER, source))?;
    let missing: Vec<(String, &BootFile)> = [("vmlinuz", kernel), ("initrd", initrd)]
        .into_iter()
        .map(|(kind, file)| (name(kind, file), file))
        .filter(|(name, file)| {
            !there.iter().any(|f| f.name == *name && f.length == file.length && is_whole(esp, name, file))
        })
        .collect();
    let needed: u64 = missing.iter().map(|(_, file)| file.length.next_multiple_of(CLUSTER_MAX)).sum();
    if missing.is_empty() || needed + RESERVE <= free(esp)? {
        return Ok(missing);
    }
    esp.reclaim().map_err(|source| failed("free what no file has on", "/", source))?;
    match free(esp)? {
        free if needed + RESERVE > free => Err(BootError::EspFull { free, needed: needed + RESERVE }),
        _ => Ok(missing),
    }
}

/// Whether a file holds what its name says: one that has rotted would stay for as long as images have the same. One that
/// cannot be read is written again too.
fn is_whole(esp: &dyn Esp, name: &str, file: &BootFile) -> bool {
    let path = format!("{FOLDER}/{name}");
    let why = match sha256(esp, &path) {
        Ok(sum) if sum.as_ref() == Some(&file.sha256) => return true,
        Ok(_) => "it is not what was written".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(path, why, "a file on the boot partition has rotted, and is written again");
    false
}

/// Of a file's bytes; `None` when it is not there.
pub(super) fn sha256(esp: &dyn Esp, path: &str) -> io::Result<Option<String>> {
    let mut hash = Hash(Sha256::new());
    let there = esp.read(path, &mut hash)?;
    Ok(there.then(|| hex(&hash.0.finalize())))
}

/// A file's bytes; `None` when it is not there.
pub(super) fn read(esp: &dyn Esp, path: &str) -> Result<Option<Vec<u8>>, BootError> {
    let mut held = Held(Vec::new());
    let there = esp.read(path, &mut held).map_err(|source| failed("read", path, source))?;
    Ok(there.then_some(held.0))
}

/// Fails if there is no room for a boot entry, also where kernel and initrd are there already.
pub(super) fn entry_fits(esp: &dyn Esp) -> Result<(), BootError> {
    if free(esp)? >= ENTRY_ROOM {
        return Ok(());
    }
    esp.reclaim().map_err(|source| failed("free what no file has on", "/", source))?;
    match free(esp)? {
        free if free < ENTRY_ROOM => Err(BootError::EspFull { free, needed: ENTRY_ROOM }),
        _ => Ok(()),
    }
}

/// Removes the files that neither an entry nor `keep` names.
pub(super) fn collect(
    esp: &dyn Esp,
    entries: &[BootEntry],
    keep: Option<(&BootFile, &BootFile)>,
) -> Result<(), BootError> {
    let kept = keep.map(|(kernel, initrd)| names(kernel, initrd));
    for file in unnamed(esp, entries)? {
        if kept.as_ref().is_none_or(|(kernel, initrd)| file.name != *kernel && file.name != *initrd) {
            let path = format!("{FOLDER}/{}", file.name);
            esp.remove(&path).map_err(|source| failed("remove", &path, source))?;
        }
    }
    Ok(())
}

/// Bytes that are free when only the files are there that the entries name, without what is kept free.
pub(super) fn room(esp: &dyn Esp, entries: &[BootEntry]) -> Result<u64, BootError> {
    let unnamed: u64 = unnamed(esp, entries)?.iter().map(|file| file.length).sum();
    Ok((free(esp)? + unnamed).saturating_sub(RESERVE))
}

fn free(esp: &dyn Esp) -> Result<u64, BootError> {
    esp.free().map_err(|source| failed("read the free space of", "/", source))
}

/// Kernels and initrds that no entry names.
fn unnamed(esp: &dyn Esp, entries: &[BootEntry]) -> Result<Vec<EspFile>, BootError> {
    let paths = entries.iter().flat_map(|entry| [&entry.body.linux, &entry.body.initrd]);
    let named: BTreeSet<&str> = paths.map(|path| base_name(path)).collect();
    let mut files = esp.list(FOLDER).map_err(|source| failed("list", FOLDER, source))?;
    files.retain(|file| {
        let ours = file.name.starts_with("vmlinuz-") || file.name.starts_with("initrd-");
        ours && !named.contains(file.name.as_str())
    });
    Ok(files)
}

fn copy(esp: &dyn Esp, slot: &SlotRegion, file: &BootFile, name: &str) -> Result<(), BootError> {
    let unreadable = |source| BootError::Slot { slot: slot.name.clone(), path: file.path.clone(), source };
    let source = slot.open_ro().map_err(unreadable)?.cursor(file.offset);
    let path = format!("{FOLDER}/{name}");
    let unfinished = format!("{path}{UNFINISHED}");
    let mut bytes = BufReader::with_capacity(COPY_BUFFER, source.take(file.length));
    esp.write(&unfinished, &mut bytes).map_err(|source| failed("write", &unfinished, source))?;
    let sum = sha256(esp, &unfinished).map_err(|source| failed("read back", &unfinished, source))?;
    if sum.as_ref() != Some(&file.sha256) {
        return Err(BootError::Mismatch { path });
    }
    // One that is not what it should be may be there.
    esp.remove(&path).map_err(|source| failed("remove", &path, source))?;
    esp.rename(&unfinished, &path).map_err(|source| failed("rename", &unfinished, source))
}

/// Writes a small file, durably.
pub(super) fn write(esp: &dyn Esp, path: &str, mut bytes: &[u8]) -> Result<(), BootError> {
    esp.write(path, &mut bytes).map_err(|source| failed("write", path, source))
}

/// The same for what boots the disk meanwhile: nothing is done where it is there already, and else it is away only between
/// two names.
pub(super) fn replace(esp: &dyn Esp, path: &str, bytes: &[u8]) -> Result<(), BootError> {
    let unfinished = format!("{path}{UNFINISHED}");
    let remove = |path: &str| esp.remove(path).map_err(|source| failed("remove", path, source));
    // One that cannot be read is replaced too.
    match read(esp, path) {
        Ok(None) => {
            write(esp, path, bytes)?;
            return remove(&unfinished);
        }
        Ok(Some(there)) if there == bytes => return remove(&unfinished),
        _ => {}
    }
    write(esp, &unfinished, bytes)?;
    remove(path)?;
    esp.rename(&unfinished, path).map_err(|source| failed("rename", &unfinished, source))
}

pub(super) fn failed(operation: &'static str, path: &str, source: io::Error) -> BootError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => BootError::ReadOnly { operation, path, source },
        _ => BootError::Io { operation, path, source },
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As much as any file has that is held. A boot partition that is damaged may say more of a file than there is.
struct Held(Vec<u8>);

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > HELD_BYTES_MAX {
            return Err(io::Error::other("it is larger than 128 MiB, and so nothing that boots a machine"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_of_a_file_is_held_than_a_program_may_have() {
        let mut held = Held(vec![0; HELD_BYTES_MAX - 1]);
        held.write_all(&[1]).unwrap();
        let error = held.write_all(&[1]).unwrap_err();
        assert!(error.to_string().contains("128 MiB"), "{error}");
        assert_eq!(held.0.len(), HELD_BYTES_MAX);
    }
}
