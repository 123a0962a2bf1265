//! Which content the slots of this disk hold: found by reading it, so that nothing has to be believed, and no slot has to
//! know the digests of its files.

use std::io;

use evenkeel_node_agent_core::{chunks::table::Table, content_index::entries::Change, tree::Kind};
use sha2::{Digest as _, Sha256};

use super::{Place, reader::SlotReader};
use crate::{
    disk::Window,
    slot::index::{self, HeldLayer},
    stage::Meter,
};

/// Content that was found.
pub(super) struct Held {
    /// By digest; what is not a file of the table is not in it.
    found: Vec<([u8; 32], Place)>,
    pub(super) slots: Vec<Window>,
}

impl Held {
    pub(super) fn place(&self, digest: &[u8; 32]) -> Option<Place> {
        let at = self.found.binary_search_by(|(found, _)| found.cmp(digest)).ok()?;
        Some(self.found[at].1)
    }
}

/// Hashes the files in `layers` that are as long as one of the table's. What cannot be read is not held.
pub(super) fn find(table: &Table, slots: &[(Window, Vec<HeldLayer>)], meter: &Meter) -> Held {
    let mut wanted: Vec<([u8; 32], u64)> =
        table.files.iter().map(|file| (file.digest, file.length)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut held = Held { found: Vec::new(), slots: slots.iter().map(|(slot, _)| slot.clone()).collect() };
    let layers = slots
        .iter()
        .zip(0..)
        .flat_map(|((slot, layers), number)| layers.iter().map(move |layer| (slot, layer, number)));
    for (slot, layer, number) in layers {
        if wanted.is_empty() || meter.is_stopped() {
            break;
        }
        let before = held.found.len();
        if let Err(error) = look_into(slot, layer, number, &wanted, &mut held.found, meter) {
            tracing::warn!(layer = layer.data.digest, %error, "a layer of a slot cannot be read");
        }
        if held.found.len() > before {
            // What was found is not looked for in other layers and slots.
            held.found.sort_unstable_by_key(|(digest, _)| *digest);
            held.found.dedup_by_key(|(digest, _)| *digest);
            wanted.retain(|(digest, _)| held.place(digest).is_none());
        }
    }
    held
}

fn look_into(
    slot: &Window,
    layer: &HeldLayer,
    number: u32,
    wanted: &[([u8; 32], u64)],
    found: &mut Vec<([u8; 32], Place)>,
    meter: &Meter,
) -> io::Result<()> {
    let mut lengths: Vec<u64> = wanted.iter().map(|(_, length)| *length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let section = index::section(slot, layer)?;
    let mut entries = section.entries(layer.data.first_block);
    let mut reader = SlotReader::new(slot.clone());
    while let Some((_, change)) = entries.next_entry().map_err(io::Error::other)? {
        let Change::Put(Kind::File { block, length }, _) = change else { continue };
        if meter.is_stopped() {
            return Ok(());
        }
        if length == 0 || lengths.binary_search(&length).is_err() {
            continue;
        }
        let mut hash = Sha256::new();
        reader.read(block, length, |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        let digest: [u8; 32] = hash.finalize().into();
        if wanted.binary_search(&(digest, length)).is_ok() {
            found.push((digest, Place { slot: number, block }));
        }
    }
    Ok(())
}
