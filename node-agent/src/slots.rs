//! What is in each slot and how it boots: the account behind `evenkeel-agent slots`.

use evenkeel_node_agent_core::{
    boot_entry::{BootEntry, next_boot},
    slot_record::RecordError,
};
use serde::Serialize;

use crate::disk::{Disk, DiskError, RegionError};

/// One slot, in the command's JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotReport {
    /// `a`, `b`, `recovery`.
    pub name: String,
    /// Bytes from the start of the disk.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether it holds an image.
    pub state: SlotState,
    /// The reference as it was asked for.
    pub image: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
    /// The image's version.
    pub version: Option<String>,
    /// Whether the loader would boot it now.
    pub bootable: bool,
    /// Whether the loader boots it next.
    pub default: bool,
    /// Boots left of a trial; absent when it is none.
    pub tries_left: Option<u32>,
}

/// Whether a slot holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    /// It was never written, or its record was wiped.
    Empty,
    /// It holds something else than its record says.
    Damaged,
    /// It holds a whole, verified image.
    Complete,
}

/// Why the slots could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A slot cannot be read.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// Looks at the slots of a disk with the given boot entries.
pub fn report(disk: &Disk, entries: &[BootEntry]) -> Result<Vec<SlotReport>, SlotsError> {
    ["a", "b", "recovery"].iter().map(|name| slot(disk, entries, name)).collect()
}

fn slot(disk: &Disk, entries: &[BootEntry], name: &str) -> Result<SlotReport, SlotsError> {
    let region = disk.slot(name)?;
    let (state, record) = match region.read_record() {
        Ok(record) => (SlotState::Complete, Some(record)),
        Err(RegionError::Record { source: RecordError::Absent, .. }) => (SlotState::Empty, None),
        Err(RegionError::Record { .. }) => (SlotState::Damaged, None),
        Err(error) => return Err(error.into()),
    };
    let entry = entries.iter().find(|entry| entry.name.slot == name);
    let tries_left = entry.and_then(|entry| entry.name.tries).map(|tries| tries.left);
    Ok(SlotReport {
        name: name.to_owned(),
        offset: region.disk_offset,
        length: region.length,
        state,
        bootable: entry.is_some() && tries_left != Some(0),
        default: next_boot(entries).is_some_and(|next| next.name.slot == name),
        tries_left,
        image: record.as_ref().map(|record| record.image.clone()),
        digest: record.as_ref().map(|record| record.digest.clone()),
        version: record.map(|record| record.version),
    })
}
