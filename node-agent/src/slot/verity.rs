//! The hash tree over a slot's blocks (dm-verity version 1, SHA-256, 4096-byte blocks, no salt), and whether the disk
//! holds what the tree says.

#[cfg(target_arch = "x86_64")]
mod lanes;
mod leaves;

use std::{io, thread};

use evenkeel_node_agent_core::{digest::hex, erofs::BLOCK, slot_record::SlotRecord};

pub(super) use leaves::{leaf, leaves};

use crate::disk::{SlotRegion, Window, aligned::AlignedBuffer};

pub(super) const DIGEST: usize = 32;
const READ: usize = 1 << 20;
/// Reading and hashing take turns in each thread; two keep both the disk and a core busy.
const THREADS: usize = 2;

/// The levels of the tree over these hashes of blocks, the root's first, each padded to whole blocks; and the digest of the root
/// block.
pub(super) fn hash_tree(hashes: Vec<u8>) -> (Vec<Vec<u8>>, [u8; DIGEST]) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut level = hashes;
    loop {
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        let mut above = Vec::with_capacity(level.len() / BLOCK * DIGEST);
        leaves(&level, |leaf| above.extend_from_slice(leaf));
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
    let hashes = hash_blocks(&slot, blocks)?;
    Ok(!hashes.is_empty() && hex(&hash_tree(hashes).1) == record.root_hash)
}

/// Reads the slot's first blocks from the disk itself and hashes each.
fn hash_blocks(slot: &Window, blocks: usize) -> io::Result<Vec<u8>> {
    let mut hashes = vec![0; blocks * DIGEST];
    let share = blocks.div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = hashes
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
    Ok(hashes)
}

fn hash_part(slot: &Window, from: u64, hashes: &mut [u8]) -> io::Result<()> {
    let mut buffer = AlignedBuffer::new(READ);
    for (index, hashes) in hashes.chunks_mut(READ / BLOCK * DIGEST).enumerate() {
        buffer.set_length(hashes.len() / DIGEST * BLOCK);
        slot.read_at(from + (index * READ) as u64, &mut buffer)?;
        let mut places = hashes.chunks_mut(DIGEST);
        leaves(&buffer, |leaf| places.next().expect("a place for each block").copy_from_slice(leaf));
    }
    Ok(())
}
