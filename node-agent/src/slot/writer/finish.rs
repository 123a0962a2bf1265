//! What comes behind the data: directories and inodes, the hash tree, and block 0 as the last of all.

use evenkeel_node_agent_core::{
    digest::hex,
    erofs::{self, BLOCK},
    tree::Tree,
};

use super::{BLOCK_BYTES, Filesystem, SlotWriter};
use crate::{
    disk::aligned::AlignedBuffer,
    slot::{
        error::WriteError,
        lane::{Check, WRITE, check, sums},
        verity::{self, DIGEST, leaf},
    },
};

impl SlotWriter {
    /// Writes the metadata of `tree`, the hash tree, and last, after a flush, block 0; then reads back what was not read
    /// back before.
    pub fn finish(&mut self, tree: &Tree, uuid: [u8; 16]) -> Result<Filesystem, WriteError> {
        self.settle()?;
        let mut scratch = AlignedBuffer::new(WRITE);
        let first_block = self.write_metadata(tree, uuid, &mut scratch)?;
        let superblock = leaf(&first_block);
        self.leaves[..DIGEST].copy_from_slice(&superblock);
        let length = self.blocks as u64 * BLOCK_BYTES;
        let (levels, root) = verity::hash_tree(std::mem::take(&mut self.leaves));
        let mut at = length;
        for level in &levels {
            self.write_blocks("write the hash tree of", at, level, &mut scratch)?;
            at += level.len() as u64;
        }
        self.write_blocks("write the superblock of", 0, &first_block, &mut scratch)?;
        // One flush for all of it: without its record, which comes behind, the slot is nothing yet.
        self.flush()?;
        for one in std::mem::take(&mut self.unchecked) {
            check(&self.slot, &self.region.name, &one, &mut scratch)?;
        }
        let sections = std::mem::take(&mut self.sections);
        Ok(Filesystem { length, root_hash: hex(&root), superblock_sha256: hex(&superblock), sections })
    }

    /// Writes directories and inodes behind the data. Gives block 0.
    fn write_metadata(
        &mut self,
        tree: &Tree,
        uuid: [u8; 16],
        scratch: &mut AlignedBuffer,
    ) -> Result<Vec<u8>, WriteError> {
        let layout = erofs::Layout::new(tree, self.next_block()?)?;
        self.check_room(u64::from(layout.total_blocks()) * BLOCK_BYTES)?;
        scratch.set_length(0);
        layout.encode(tree, &mut |block| {
            self.leaves.extend(leaf(block));
            scratch.append(block);
            if scratch.len() == WRITE { self.write_metadata_blocks(scratch) } else { Ok(()) }
        })?;
        self.write_metadata_blocks(scratch)?;
        Ok(layout.first_block(uuid))
    }

    fn write_metadata_blocks(&mut self, blocks: &mut AlignedBuffer) -> Result<(), WriteError> {
        let at = self.blocks as u64 * BLOCK_BYTES;
        self.write_at("write the metadata of", at, blocks)?;
        self.unchecked.push(Check { at, sums: sums(blocks) });
        self.blocks += blocks.len() / BLOCK;
        blocks.set_length(0);
        Ok(())
    }

    /// Writes whole blocks by aligned writes, and notes what to read back.
    fn write_blocks(
        &mut self,
        operation: &'static str,
        at: u64,
        bytes: &[u8],
        scratch: &mut AlignedBuffer,
    ) -> Result<(), WriteError> {
        self.check_room(at + bytes.len() as u64)?;
        for (part, at) in bytes.chunks(WRITE).zip((at..).step_by(WRITE)) {
            scratch.set_length(0);
            scratch.append(part);
            self.write_at(operation, at, scratch)?;
            self.unchecked.push(Check { at, sums: sums(part) });
        }
        Ok(())
    }
}
