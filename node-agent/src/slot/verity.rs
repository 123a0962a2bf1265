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

/// The levels of the tree over these leaves, the root's first, each padded to whole blocks; and the digest of the root
/// block.
pub(super) fn hash_tree(leaves: Vec<u8>) -> (Vec<Vec<u8>>, [u8; DIGEST]) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut level = leaves;
    loop {
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        let above: Vec<u8> = level.chunks(BLOCK).flat_map(leaf).collect();
        levels.push(level);
        if let Ok(root) = above.as_slice().try_into() {
            levels.reverse();
            return (levels, root);
        }
        level = above;
    }
}

/// Whether the slot still holds what its record says, by reading all of it.
pub fn holds(region: &SlotRegion, record: &SlotRecord) -> io::Result<bool> {
    let slot = region.open_ro()?;
    if record.filesystem_length > region.length {
        return Ok(false);
    }
    let blocks = usize::try_from(record.filesystem_length).map_err(io::Error::other)? / BLOCK;
    let leaves = hash_blocks(&slot, blocks)?;
    Ok(!leaves.is_empty() && hex(&hash_tree(leaves).1) == record.root_hash)
}

/// Reads the slot's first blocks from the disk itself and hashes each.
fn hash_blocks(slot: &Window, blocks: usize) -> io::Result<Vec<u8>> {
    let mut leaves = vec![0; blocks * DIGEST];
    let share = blocks.div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = leaves
            .chunks_mut(share * DIGEST)
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

fn hash_part(slot: &Window, from: u64, leaves: &mut [u8]) -> io::Result<()> {
    let mut buffer = AlignedBuffer::new(READ);
    for (index, leaves) in leaves.chunks_mut(READ / BLOCK * DIGEST).enumerate() {
        buffer.set_length(leaves.len() / DIGEST * BLOCK);
        slot.read_at(from + (index * READ) as u64, &mut buffer)?;
        for (block, place) in buffer.chunks(BLOCK).zip(leaves.chunks_mut(DIGEST)) {
            place.copy_from_slice(&leaf(block));
        }
    }
    Ok(())
}
