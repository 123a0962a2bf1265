//! Which content the slots of this disk hold: found by reading it, so that nothing has to be believed, and no slot has to
//! know the digests of its files.

use std::io;

use evenkeel_node_agent_core::{
    chunks::{
        cut::{Cutter, Piece},
        table::{self, Table},
    },
    content_index::entries::Change,
    erofs::BLOCK,
    tree::Kind,
};
use sha2::{Digest as _, Sha256};

use super::{Place, reader::SlotReader};
use crate::{
    disk::Window,
    slot::index::{self, HeldLayer},
    stage::Meter,
};

/// Content that was found.
pub(super) struct Held {
    /// By digest: files and chunks of the table.
    found: Vec<([u8; 32], Place)>,
    pub(super) slots: Vec<Window>,
}

impl Held {
    pub(super) fn place(&self, digest: &[u8; 32]) -> Option<Place> {
        let at = self.found.binary_search_by(|(found, _)| found.cmp(digest)).ok()?;
        Some(self.found[at].1)
    }

    /// Takes in what was found. Tells whether that was anything.
    fn add(&mut self, more: Vec<([u8; 32], Place)>) -> bool {
        let any = !more.is_empty();
        self.found.extend(more);
        self.found.sort_unstable_by_key(|(digest, _)| *digest);
        self.found.dedup_by_key(|(digest, _)| *digest);
        any
    }
}

/// Content that is looked for, by digest and length.
type Wanted = Vec<([u8; 32], u64)>;

fn in_order(mut wanted: Wanted) -> Wanted {
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Looks for the table's files in `layers`, and then for chunks of those that are not there in files of the same name.
/// What cannot be read is not held.
pub(super) fn find(table: &Table, slots: &[(Window, Vec<HeldLayer>)], meter: &Meter) -> Held {
    let mut held = Held { found: Vec::new(), slots: slots.iter().map(|(slot, _)| slot.clone()).collect() };
    let files = in_order(table.files.iter().map(|file| (file.digest, file.length)).collect());
    search(&mut held, slots, meter, files, files_of);
    let others = || table.files.iter().filter(|file| held.place(&file.digest).is_none());
    let mut names: Vec<u64> =
        others().filter(|file| table.chunks(file).len() > 1).map(|file| file.name).collect();
    names.sort_unstable();
    let chunks = others().flat_map(|file| table.chunks(file)).filter(|chunk| !chunk.zeros);
    let chunks = in_order(chunks.map(|chunk| (chunk.digest, chunk.length)).collect());
    if !names.is_empty() {
        let every = table.chunk_length();
        search(&mut held, slots, meter, chunks, |layer, wanted| chunks_of(layer, wanted, &names, every));
    }
    held
}

/// Looks into one layer after the other, until there is nothing more to look for.
fn search(
    held: &mut Held,
    slots: &[(Window, Vec<HeldLayer>)],
    meter: &Meter,
    mut wanted: Wanted,
    look: impl Fn(&InSlot<'_>, &Wanted) -> io::Result<Vec<([u8; 32], Place)>>,
) {
    let layers = slots.iter().zip(0..).flat_map(|((window, layers), slot)| {
        layers.iter().map(move |layer| InSlot { window, layer, slot, meter })
    });
    for layer in layers {
        if wanted.is_empty() || meter.is_stopped() {
            break;
        }
        match look(&layer, &wanted) {
            Ok(found) => {
                if held.add(found) {
                    // What was found is not looked for in other layers and slots.
                    wanted.retain(|(digest, _)| held.place(digest).is_none());
                }
            }
            Err(error) => {
                tracing::warn!(layer = layer.layer.data.digest, %error, "a layer of a slot cannot be read");
            }
        }
    }
}

/// A layer in a slot.
struct InSlot<'a> {
    window: &'a Window,
    layer: &'a HeldLayer,
    slot: u32,
    meter: &'a Meter,
}

impl InSlot<'_> {
    /// Shows each file that is not empty: its path, its first block, its length.
    fn files(
        &self,
        mut show: impl FnMut(&mut SlotReader, &[u8], u32, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let section = index::section(self.window, self.layer)?;
        let mut entries = section.entries(self.layer.data.first_block);
        let mut reader = SlotReader::new(self.window.clone());
        while let Some((path, change)) = entries.next_entry().map_err(io::Error::other)? {
            let Change::Put(Kind::File { block, length }, _) = change else { continue };
            if self.meter.is_stopped() {
                return Ok(());
            }
            if length > 0 {
                show(&mut reader, path, block, length)?;
            }
        }
        Ok(())
    }
}

/// Hashes the files that are as long as one that is looked for.
fn files_of(layer: &InSlot<'_>, wanted: &Wanted) -> io::Result<Vec<([u8; 32], Place)>> {
    let mut lengths: Vec<u64> = wanted.iter().map(|(_, length)| *length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut found = Vec::new();
    layer.files(|reader, _, block, length| {
        if lengths.binary_search(&length).is_err() {
            return Ok(());
        }
        let mut hash = Sha256::new();
        reader.read(u64::from(block) * BLOCK as u64, length, |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        let digest: [u8; 32] = hash.finalize().into();
        if wanted.binary_search(&(digest, length)).is_ok() {
            found.push((digest, Place { slot: layer.slot, block, skip: 0 }));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Cuts the files that have one of the `names`: into chunks of `every` bytes, or by what is in them.
fn chunks_of(
    layer: &InSlot<'_>,
    wanted: &Wanted,
    names: &[u64],
    every: Option<u64>,
) -> io::Result<Vec<([u8; 32], Place)>> {
    let mut found = Vec::new();
    layer.files(|reader, path, block, length| {
        if names.binary_search(&table::name(path)).is_err() {
            return Ok(());
        }
        let mut take = |piece: Piece| {
            if wanted.binary_search(&(piece.digest, piece.length)).is_ok() {
                found.push((piece.digest, place(layer.slot, block, piece.offset)));
            }
        };
        let mut cutter = every.map_or_else(Cutter::default, Cutter::of_length);
        reader.read(u64::from(block) * BLOCK as u64, length, |bytes| {
            cutter.feed(bytes, &mut take);
            Ok(())
        })?;
        cutter.finish(&mut take);
        Ok(())
    })?;
    Ok(found)
}

/// The place of a byte of the file that begins with `block`.
fn place(slot: u32, block: u32, offset: u64) -> Place {
    let number = |number: u64| u32::try_from(number).expect("a file lies within its slot's blocks");
    let (blocks, skip) = (offset / BLOCK as u64, offset % BLOCK as u64);
    Place { slot, block: block + number(blocks), skip: number(skip) }
}
