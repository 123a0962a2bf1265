//! Whether a slot still holds what was written into it, as dm-verity will find it when it runs: the hash tree from its
//! root down, and every block of the file system, in bounded memory.

use std::io;

use evenkeel_node_agent_core::{digest::hex, erofs::BLOCK, slot_record::SlotRecord};

use super::verity::{DIGEST, leaf};
use crate::disk::{SlotRegion, Window};

/// Hashes in one block of the tree.
const HASHES: usize = BLOCK / DIGEST;

/// Reads everything that the record's root hash stands for. Gives the first byte, from the slot's start, of the first
/// block that is not what was written; `None` when all are.
pub fn first_damage(region: &SlotRegion, record: &SlotRecord) -> io::Result<Option<u64>> {
    let slot = region.open_ro()?;
    let blocks = record.filesystem_length / BLOCK as u64;
    let levels = levels(blocks);
    let tree: u64 = levels.iter().sum();
    let fits = (blocks + tree).checked_mul(BLOCK as u64).is_some_and(|end| end <= region.length);
    if blocks == 0 || !fits {
        return Ok(Some(0));
    }
    let mut at = blocks;
    let mut above = Above::Root(record.root_hash.clone());
    let (leaves, upper) = levels.split_last().expect("a tree has at least one level");
    for count in upper {
        let mut hashes = Vec::new();
        for block in 0..*count {
            let bytes = read(&slot, at + block, 1)?;
            if !above.holds(block, &bytes) {
                return Ok(Some((at + block) * BLOCK as u64));
            }
            hashes.extend_from_slice(&bytes);
        }
        above = Above::Level(hashes);
        at += count;
    }
    for block in 0..*leaves {
        let hashes = read(&slot, at + block, 1)?;
        if !above.holds(block, &hashes) {
            return Ok(Some((at + block) * BLOCK as u64));
        }
        let first = block * HASHES as u64;
        let data = read(&slot, first, (blocks - first).min(HASHES as u64))?;
        let differs =
            data.chunks(BLOCK).zip(hashes.chunks(DIGEST)).position(|(data, hash)| leaf(data) != hash);
        if let Some(index) = differs {
            return Ok(Some((first + index as u64) * BLOCK as u64));
        }
    }
    Ok(None)
}

/// Blocks of each level of the tree over so many blocks, the root's first.
fn levels(blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut count = blocks;
    while count > 1 || levels.is_empty() {
        count = count.div_ceil(HASHES as u64);
        levels.push(count);
    }
    levels.reverse();
    levels
}

/// The level above, which is known to be right.
enum Above {
    Root(String),
    Level(Vec<u8>),
}

impl Above {
    fn holds(&self, block: u64, bytes: &[u8]) -> bool {
        let hash = leaf(bytes);
        match self {
            Self::Root(root) => block == 0 && hex(&hash) == *root,
            Self::Level(hashes) => {
                let index = usize::try_from(block).ok();
                index.and_then(|index| hashes.chunks(DIGEST).nth(index)) == Some(&hash[..])
            }
        }
    }
}

fn read(slot: &Window, block: u64, count: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(count).map_err(io::Error::other)? * BLOCK;
    let mut bytes = vec![0; length];
    slot.read_at(block * BLOCK as u64, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_dm_verity() {
        for (blocks, expected) in
            [(1, &[1][..]), (128, &[1]), (129, &[1, 2]), (16_384, &[1, 128]), (16_385, &[1, 2, 129])]
        {
            assert_eq!(levels(blocks), expected, "{blocks}");
        }
    }
}
