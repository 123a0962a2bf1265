//! The hash tree over a slot's blocks (dm-verity version 1, SHA-256, 4096-byte blocks, no salt), and whether the disk
//! holds what the tree says.

use std::{io, thread};

use evenkeel_node_agent_core::{digest::hex, erofs::BLOCK, slot_record::SlotRecord};
use sha2::{Digest as _, Sha256};

use crate::disk::{SlotRegion, Window, aligned::AlignedBuffer};

pub(super) const DIGEST: usize = 32;
const READ: usize = 1 << 20;
/// Reading and hashing take turns in each thread; two keep both the disk and a core busy.
const THREADS: usize = 2;

/// The hash of one block.
pub(super) fn leaf(block: &[u8]) -> [u8; DIGEST] {
    Sha256::digest(block).into()
}

/// The levels above the leaves, the root's first, each padded to whole blocks; and the digest of the root block.
pub(super) fn hash_tree(leaves: &[[u8; DIGEST]]) -> (Vec<u8>, [u8; DIGEST]) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut below = leaves.to_vec();
    loop {
        let mut level = below.concat();
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        below = level.chunks(BLOCK).map(leaf).collect();
        levels.push(level);
        if let [root] = below[..] {
            levels.reverse();
            return (levels.concat(), root);
        }
    }
}

/// The first byte of the first block that does not hash to its leaf.
pub(super) fn first_difference(slot: &Window, leaves: &[[u8; DIGEST]]) -> io::Result<Option<u64>> {
    let found = hash_blocks(slot, leaves.len())?;
    let differs = found.iter().zip(leaves).position(|(found, leaf)| found != leaf);
    Ok(differs.map(|block| (block * BLOCK) as u64))
}

/// Whether the slot still holds what its record says, by reading all of it.
pub fn holds(region: &SlotRegion, record: &SlotRecord) -> io::Result<bool> {
    let slot = region.open_ro()?;
    if record.filesystem_length > region.length {
        return Ok(false);
    }
    let blocks = usize::try_from(record.filesystem_length).map_err(io::Error::other)? / BLOCK;
    let leaves = hash_blocks(&slot, blocks)?;
    Ok(!leaves.is_empty() && hex(&hash_tree(&leaves).1) == record.root_hash)
}

/// Reads the slot's first blocks from the disk itself and hashes each.
fn hash_blocks(slot: &Window, blocks: usize) -> io::Result<Vec<[u8; DIGEST]>> {
    let mut leaves = vec![[0; DIGEST]; blocks];
    let share = blocks.div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = leaves
            .chunks_mut(share)
            .enumerate()
            .map(|(index, part)| {
                let from = (index * share * BLOCK) as u64;
                scope.spawn(move || hash_part(slot, from, part))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
        })
    })?;
    Ok(leaves)
}

fn hash_part(slot: &Window, from: u64, leaves: &mut [[u8; DIGEST]]) -> io::Result<()> {
    let mut buffer = AlignedBuffer::new(READ);
    for (index, leaves) in leaves.chunks_mut(READ / BLOCK).enumerate() {
        buffer.set_length(leaves.len() * BLOCK);
        slot.read_at(from + (index * READ) as u64, &mut buffer)?;
        for (block, place) in buffer.chunks(BLOCK).zip(leaves) {
            *place = leaf(block);
        }
    }
    Ok(())
}
