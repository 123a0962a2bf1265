//! Where a byte reaches the slot: data in the order in which it comes, metadata and hash tree behind it, block 0 last.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

use evenkeel_node_agent_core::{
    digest::hex,
    erofs::{self, BLOCK, ErofsError},
    slot_record::{RECORD_LENGTH, RecordError, SlotRecord},
    tree::Tree,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};

use crate::disk::SlotRegion;

/// Bytes of one write: a multiple of every erase block that a card or a drive is likely to have, and small in memory.
const WRITE: usize = 1 << 20;
const DIGEST: usize = 32;
const BLOCK_BYTES: u64 = BLOCK as u64;

/// Why a slot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk refused.
    #[error("{operation} slot {slot}: look at the kernel's log for errors of the disk")]
    Disk {
        /// What was being done.
        operation: &'static str,
        /// The slot.
        slot: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The source of a file's data failed.
    #[error("the data of a file ended early or cannot be read")]
    Source(#[source] io::Error),
    /// The image does not fit.
    #[error(
        "the image does not fit into slot {slot} of {length} bytes: make the image smaller, or install with a larger --slot-size"
    )]
    TooLarge {
        /// The slot.
        slot: String,
        /// Its size in bytes.
        length: u64,
    },
    /// The tree cannot be an EROFS.
    #[error("the image's tree cannot be written")]
    Erofs(#[from] ErofsError),
    /// The record does not fit.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The disk gave back something else than was written.
    #[error("slot {slot} reads back differently at byte {at} of the slot: the disk is failing; replace it")]
    ReadBack {
        /// The slot.
        slot: String,
        /// The first byte of the block that differs.
        at: u64,
    },
}

/// What was written, as the slot's record keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Bytes of the file system.
    pub length: u64,
    /// Root of the hash tree behind it (dm-verity version 1, SHA-256, 4096-byte blocks, no salt), lower-case hex.
    pub root_hash: String,
    /// SHA-256 of block 0, lower-case hex.
    pub superblock_sha256: String,
}

/// A slot that is being written. Until [`SlotWriter::seal`] it is not complete, whatever happens.
pub struct SlotWriter {
    file: File,
    region: SlotRegion,
    buffer: Vec<u8>,
    /// SHA-256 of every block so far; block 0 comes last and has a place.
    leaves: Vec<[u8; DIGEST]>,
}

impl SlotWriter {
    /// Opens the slot and makes it incomplete, durably, before anything else.
    pub fn begin(region: &SlotRegion) -> Result<Self, WriteError> {
        let disk =
            |operation| move |source| WriteError::Disk { operation, slot: region.name.clone(), source };
        let file = region.open_rw().map_err(disk("open"))?;
        let writer = Self {
            file,
            region: region.clone(),
            buffer: Vec::with_capacity(WRITE),
            leaves: vec![[0; DIGEST]],
        };
        let length = usize::try_from(RECORD_LENGTH).expect("64 KiB fits every usize");
        writer.write_at("wipe the record of", writer.record_at()?, &vec![0; length])?;
        writer.flush()?;
        Ok(writer)
    }

    /// Writes `size` bytes of a file and gives its first block; 0 for an empty file.
    pub fn write_file(&mut self, data: &mut impl Read, size: u64) -> Result<u32, WriteError> {
        if size == 0 {
            return Ok(0);
        }
        let block = self.next_block()?;
        let mut left = size;
        while left > 0 {
            let room = (WRITE - self.buffer.len()) as u64;
            let want = left.min(room);
            let got = data.take(want).read_to_end(&mut self.buffer).map_err(WriteError::Source)? as u64;
            if got < want {
                return Err(WriteError::Source(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= got;
            self.drain(WRITE)?;
        }
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        self.drain(WRITE)?;
        Ok(block)
    }

    /// Writes the metadata of `tree`, the hash tree, and last, after a flush, block 0; then reads everything back.
    pub fn finish(&mut self, tree: &Tree, uuid: [u8; 16]) -> Result<Filesystem, WriteError> {
        let metadata = erofs::encode(tree, self.next_block()?, uuid)?;
        for part in metadata.blocks.chunks(WRITE) {
            self.drain(BLOCK)?;
            self.buffer.extend_from_slice(part);
        }
        self.drain(BLOCK)?;
        self.leaves[0] = Sha256::digest(&metadata.first_block).into();
        let length = self.leaves.len() as u64 * BLOCK_BYTES;
        let (hash_tree, root) = hash_tree(&self.leaves);
        self.check_room(length + hash_tree.len() as u64)?;
        for (index, part) in hash_tree.chunks(WRITE).enumerate() {
            self.write_at("write the hash tree of", length + (index * WRITE) as u64, part)?;
        }
        self.flush()?;
        self.write_at("write the superblock of", 0, &metadata.first_block)?;
        self.flush()?;
        self.read_back()?;
        Ok(Filesystem { length, root_hash: hex(&root), superblock_sha256: hex(&self.leaves[0]) })
    }

    /// Writes the record: from here on the slot is complete.
    pub fn seal(self, record: &SlotRecord) -> Result<(), WriteError> {
        self.write_at("write the record of", self.record_at()?, &record.encode()?)?;
        self.flush()
    }

    fn next_block(&self) -> Result<u32, WriteError> {
        let block = self.leaves.len() + self.buffer.len() / BLOCK;
        Ok(u32::try_from(block).map_err(|_| ErofsError::TooManyBlocks)?)
    }

    /// Writes the buffer's whole blocks if there are at least `least` bytes of them.
    fn drain(&mut self, least: usize) -> Result<(), WriteError> {
        let whole = self.buffer.len() / BLOCK * BLOCK;
        if whole < least {
            return Ok(());
        }
        let at = self.leaves.len() as u64 * BLOCK_BYTES;
        self.check_room(at + whole as u64)?;
        self.write_at("write", at, &self.buffer[..whole])?;
        self.leaves.extend(
            self.buffer[..whole].chunks(BLOCK).map(|block| <[u8; DIGEST]>::from(Sha256::digest(block))),
        );
        self.buffer.drain(..whole);
        Ok(())
    }

    fn read_back(&self) -> Result<(), WriteError> {
        let disk = |source: io::Error| self.disk("read back", source);
        // What the page cache still holds says nothing about the disk.
        let length = i64::try_from(self.region.length).unwrap_or(0);
        let offset = i64::try_from(self.region.offset).unwrap_or(0);
        posix_fadvise(&self.file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|error| disk(error.into()))?;
        let mut buffer = vec![0; WRITE];
        for (index, leaves) in self.leaves.chunks(WRITE / BLOCK).enumerate() {
            let at = (index * WRITE) as u64;
            let part = &mut buffer[..leaves.len() * BLOCK];
            self.file.read_exact_at(part, self.region.offset + at).map_err(disk)?;
            let differs = part
                .chunks(BLOCK)
                .zip(leaves)
                .position(|(block, leaf)| Sha256::digest(block).as_slice() != leaf);
            if let Some(block) = differs {
                return Err(WriteError::ReadBack {
                    slot: self.region.name.clone(),
                    at: at + (block * BLOCK) as u64,
                });
            }
        }
        Ok(())
    }

    fn record_at(&self) -> Result<u64, WriteError> {
        self.region.length.checked_sub(RECORD_LENGTH).ok_or_else(|| self.too_large())
    }

    fn check_room(&self, end: u64) -> Result<(), WriteError> {
        if end > self.record_at()? { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> WriteError {
        WriteError::TooLarge { slot: self.region.name.clone(), length: self.region.length }
    }

    fn write_at(&self, operation: &'static str, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all_at(bytes, self.region.offset + at).map_err(|source| self.disk(operation, source))
    }

    fn flush(&self) -> Result<(), WriteError> {
        self.file.sync_data().map_err(|source| self.disk("flush", source))
    }

    fn disk(&self, operation: &'static str, source: io::Error) -> WriteError {
        WriteError::Disk { operation, slot: self.region.name.clone(), source }
    }
}

/// The levels above the leaves, the root's first, each padded to whole blocks; and the digest of the root block.
fn hash_tree(leaves: &[[u8; DIGEST]]) -> (Vec<u8>, [u8; DIGEST]) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut below = leaves.to_vec();
    loop {
        let mut level = below.concat();
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        below = level.chunks(BLOCK).map(|block| Sha256::digest(block).into()).collect();
        levels.push(level);
        if let [root] = below[..] {
            levels.reverse();
            return (levels.concat(), root);
        }
    }
}
