//! A disk that is larger than the one that it was made for: what becomes of its partition table, and of the file system in
//! its last partition.

#[cfg(test)]
mod tests;

use crate::{
    layout::{MIB, Role},
    partition_table::{Blocks, Partition, Table, TableError},
};

/// A layout leaves less than 2 MiB at a disk's end: what is less than this is no growth.
const GROWTH_MIN: u64 = 4 * MIB;

/// The table for a disk: its second copy at the disk's end, and its last partition up to there. `None` where nothing is to
/// be done: it is so already, or its last partition is not the state partition, or it is not a table of ours.
pub fn table(table: &Table, disk: Blocks) -> Result<Option<Table>, TableError> {
    let Some(state) = last(table).filter(|_| is_ours(table)) else { return Ok(None) };
    let grows = unused(table, disk) > 0;
    if !grows && table.end() == disk.count.saturating_sub(1) {
        return Ok(None);
    }
    let mut new = table.clone();
    if grows {
        new.set_last(state.index, table.last_usable(disk));
    }
    // Fails for a disk that has become smaller.
    new.copies(disk)?;
    Ok(Some(new))
}

/// Bytes of a disk behind its state partition that are its to use; none where that is no growth, or where the table is not
/// one of ours.
pub fn unused(table: &Table, disk: Blocks) -> u64 {
    let Some(state) = last(table).filter(|_| is_ours(table)) else { return 0 };
    let gain = table.last_usable(disk).saturating_sub(state.last).saturating_mul(disk.size);
    if gain >= GROWTH_MIN { gain } else { 0 }
}

/// Whether the second copy of a table is where a disk that was smaller ended.
pub fn has_outgrown(table: &Table, disk: Blocks) -> bool {
    table.end() < disk.count.saturating_sub(1)
}

/// Whether a table is one of Evenkeel's layout, in which nothing lies behind the state partition.
pub fn is_ours(table: &Table) -> bool {
    let has = |role: Role| table.partitions().any(|partition| partition.name == role.partition_name());
    let is_state = |partition: Partition| partition.name == Role::State.partition_name();
    last(table).is_some_and(is_state) && has(Role::Esp) && has(Role::Slot(0))
}

fn last(table: &Table) -> Option<Partition> {
    table.partitions().max_by_key(|partition| partition.first)
}

/// Where the superblock of an ext4 is, bytes from its start, and its length (Linux,
/// `Documentation/filesystems/ext4/super.rst`).
pub const SUPERBLOCK_AT: u64 = 1024;
/// See [`SUPERBLOCK_AT`].
pub const SUPERBLOCK_BYTES: usize = 1024;
const BLOCKS_LOW: usize = 0x4;
const LOG_BLOCK_SIZE: usize = 0x18;
/// Of the format's 1 KiB to 64 KiB.
const LOG_BLOCK_SIZE_MAX: u32 = 6;
const MAGIC_AT: usize = 0x38;
const MAGIC: [u8; 2] = [0x53, 0xEF];
const INCOMPATIBLE: usize = 0x60;
const HAS_64_BITS: u32 = 0x80;
const BLOCKS_HIGH: usize = 0x150;

/// An ext4 file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ext4 {
    /// Its blocks.
    pub blocks: Blocks,
    has_64_bits: bool,
}

impl Ext4 {
    /// Reads a superblock; `None` where there is none.
    pub fn parse(superblock: &[u8; SUPERBLOCK_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            u32::from_le_bytes([superblock[at], superblock[at + 1], superblock[at + 2], superblock[at + 3]])
        };
        let log = word(LOG_BLOCK_SIZE);
        if superblock[MAGIC_AT..MAGIC_AT + 2] != MAGIC || log > LOG_BLOCK_SIZE_MAX {
            return None;
        }
        let has_64_bits = word(INCOMPATIBLE) & HAS_64_BITS != 0;
        let high = if has_64_bits { u64::from(word(BLOCKS_HIGH)) << 32 } else { 0 };
        let blocks = Blocks { count: high | u64::from(word(BLOCKS_LOW)), size: 1024 << log };
        Some(Self { blocks, has_64_bits })
    }

    /// How many blocks it could have in a partition of `bytes`; `None` where it has them already.
    pub fn growth(self, bytes: u64) -> Option<u64> {
        let limit = if self.has_64_bits { u64::MAX } else { u32::MAX.into() };
        let room = (bytes / self.blocks.size).min(limit);
        (room > self.blocks.count).then_some(room)
    }
}
