//! Kernels and initrds on the boot partition, compared with what the slots hold that boot by them.

use std::io;

use evenkeel_node_agent_core::slot_record::BootFile;

use super::{BootError, Bootloader, files};
use crate::{disk::Disk, esp::Esp};

/// What a person calls an entry, whose file has another name with each loader.
const ENTRY: &str = "the boot entry";

/// A file that a slot's boot entry names and that is not what the slot holds.
#[derive(Debug, thiserror::Error)]
#[error("{path} on the boot partition, by which slot {slot} boots, {what}")]
pub struct FileDamage {
    /// The slot.
    pub slot: String,
    /// Path on the partition.
    pub path: String,
    /// What is wrong with it.
    pub what: Wrong,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// It is gone.
    #[error("is not there")]
    Missing,
    /// It was cut off or changed.
    #[error("is not what the slot holds")]
    Other,
    /// It is an entry for another partition, as when a copy of a disk was given GUIDs of its own, or for other bytes there.
    #[error(
        "names partition {0} and not the slot's, or another root hash than the slot has: `evenkeel-agent rollback --to SLOT` \
         writes it anew"
    )]
    OtherSlot(String),
    /// The disk does not give it, or the file system around it is damaged.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Reads every kernel and initrd that the entry of a complete slot names. Gives those that are not what the slot's record
/// says, and entries that are for something else; fails when the entries cannot be read.
pub fn damaged_files(disk: &Disk, loader: &dyn Bootloader) -> Result<Vec<FileDamage>, BootError> {
    let mut found = Vec::new();
    for entry in loader.entries()? {
        let slot = entry.name.slot;
        // What a slot that holds no image would boot by is compared with nothing.
        let Ok(region) = disk.slot(&slot) else { continue };
        let Ok(record) = region.read_record() else { continue };
        let part_uuid = entry.body.part_uuid;
        if !part_uuid.eq_ignore_ascii_case(&region.part_uuid) || entry.body.root_hash != record.root_hash {
            let what = Wrong::OtherSlot(part_uuid);
            found.push(FileDamage { slot: slot.clone(), path: ENTRY.to_owned(), what });
        }
        for (path, file) in [(entry.body.linux, &record.kernel), (entry.body.initrd, &record.initrd)] {
            // Of a rename in which the power went, two entries of a slot may be left.
            if found.iter().any(|known: &FileDamage| known.slot == slot && known.path == path) {
                continue;
            }
            if let Some(what) = wrong(loader.esp(), path.trim_start_matches('/'), file) {
                found.push(FileDamage { slot: slot.clone(), path, what });
            }
        }
    }
    Ok(found)
}

fn wrong(esp: &dyn Esp, path: &str, file: &BootFile) -> Option<Wrong> {
    match files::sha256(esp, path) {
        Ok(Some(sum)) if sum == file.sha256 => None,
        Ok(Some(_)) => Some(Wrong::Other),
        Ok(None) => Some(Wrong::Missing),
        Err(error) => Some(Wrong::Unreadable(error)),
    }
}
