//! Whether a slot still holds what was written into it, as dm-verity will find it when it runs: the hash tree from its
//! root down, and every block of the file system, in bounded memory.

use std::io;

use evenkeel_node_agent_core::{digest::hex, erofs::BLOCK, slot_record::SlotRecord};

use super::verity::{DIGEST, leaf, leaves};
use crate::disk::{SlotRegion, Window};

/// Hashes in one block of the tree.
const HASHES: usize = BLOCK / DIGEST;

/// A block of a slot that is not what was written. Places are bytes from the start of the slot.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It holds something else.
    #[error(
        "slot {slot} does not hold what was written into it: the block at byte {at} of the slot is another. Stage the image \
         again; if it happens again, replace the disk"
    )]
    Other {
        /// The slot.
        slot: String,
        /// The block's first byte.
        at: u64,
    },
    /// The disk does not give it.
    #[error(
        "slot {slot} cannot be read at byte {at} of the slot. Stage the image again, which writes that place anew; if it \
         happens again, replace the disk"
    )]
    Unreadable {
        /// The slot.
        slot: String,
        /// The block's first byte.
        at: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Damage {
    /// The block's first byte.
    pub fn at(&self) -> u64 {
        let (Self::Other { at, .. } | Self::Unreadable { at, .. }) = self;
        *at
    }
}

/// Reads everything that the record's root hash stands for. Gives the first block that is not what was written; `None`
/// when all are. Fails when the slot cannot be opened.
pub fn first_damage(region: &SlotRegion, record: &SlotRecord) -> io::Result<Option<Damage>> {
    let slot = Blocks { window: region.open_ro()?, slot: &region.name };
    Ok(slot.look(record).err())
}

/// A slot by its blocks.
struct Blocks<'a> {
    window: Window,
    slot: &'a str,
}

impl Blocks<'_> {
    fn look(&self, record: &SlotRecord) -> Result<(), Damage> {
        let blocks = record.filesystem_length / BLOCK as u64;
        let levels = levels(blocks);
        let tree: u64 = levels.iter().sum();
        let fits = (blocks + tree).checked_mul(BLOCK as u64).is_some_and(|end| end <= self.window.length());
        if blocks == 0 || !fits {
            return Err(self.other(0));
        }
        let mut at = blocks;
        let mut above = Above::Root(record.root_hash.clone());
        let (lowest, upper) = levels.split_last().expect("a tree has at least one level");
        for count in upper {
            let mut hashes = Vec::new();
            for block in 0..*count {
                hashes.extend_from_slice(&self.hashes(at, block, &above)?);
            }
            above = Above::Level(hashes);
            at += count;
        }
        for block in 0..*lowest {
            let hashes = self.hashes(at, block, &above)?;
            let first = block * HASHES as u64;
            let data = self.read(first, (blocks - first).min(HASHES as u64))?;
            let mut found = Vec::with_capacity(data.len() / BLOCK * DIGEST);
            leaves(&data, |leaf| found.extend_from_slice(leaf));
            let differs =
                found.chunks(DIGEST).zip(hashes.chunks(DIGEST)).position(|(one, other)| one != other);
            if let Some(index) = differs {
                return Err(self.other(first + index as u64));
            }
        }
        Ok(())
    }

    /// A block of a level that begins at `at`.
    fn hashes(&self, at: u64, block: u64, above: &Above) -> Result<Vec<u8>, Damage> {
        let bytes = self.read(at + block, 1)?;
        if above.holds(block, &bytes) { Ok(bytes) } else { Err(self.other(at + block)) }
    }

    fn read(&self, block: u64, count: u64) -> Result<Vec<u8>, Damage> {
        let mut bytes = vec![0; usize::try_from(count).expect("at most HASHES") * BLOCK];
        if self.window.read_at(block * BLOCK as u64, &mut bytes).is_err() {
            // One by one, which tells where; and the disk may have thought better of it.
            for (at, part) in (block..).zip(bytes.chunks_mut(BLOCK)) {
                let at = at * BLOCK as u64;
                let unreadable = |source| Damage::Unreadable { slot: self.slot.to_owned(), at, source };
                self.window.read_at(at, part).map_err(unreadable)?;
            }
        }
        Ok(bytes)
    }

    fn other(&self, block: u64) -> Damage {
        Damage::Other { slot: self.slot.to_owned(), at: block * BLOCK as u64 }
    }
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
