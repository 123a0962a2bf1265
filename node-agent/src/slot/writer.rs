//! Where a byte reaches the slot: data in the order in which it comes, metadata and hash tree behind it, block 0 last.

use std::{
    io::{self, Read},
    mem,
};

use evenkeel_node_agent_core::{
    digest::hex,
    erofs::{self, BLOCK, ErofsError},
    slot_record::{RECORD_LENGTH, RecordError, SlotRecord},
    tree::Tree,
};

use super::{
    disk_thread::DiskThread,
    verity::{self, DIGEST, leaf},
};
use crate::disk::{SlotRegion, Window};

/// Bytes of one write: a multiple of every erase block that a card or a drive is likely to have, and small in memory.
const WRITE: usize = 1 << 20;
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
    slot: Window,
    region: SlotRegion,
    buffer: Vec<u8>,
    /// Blocks before the buffer's first; block 0 comes last and has a place.
    blocks: usize,
    /// SHA-256 of every block, once the data is settled.
    leaves: Vec<[u8; DIGEST]>,
    /// Takes the data while it comes.
    disk: Option<DiskThread>,
    bytes: u64,
}

impl SlotWriter {
    /// Opens the slot and makes it incomplete, durably, before anything else.
    pub fn begin(region: &SlotRegion) -> Result<Self, WriteError> {
        let disk =
            |operation| move |source| WriteError::Disk { operation, slot: region.name.clone(), source };
        let slot = region.open_rw().map_err(disk("open"))?;
        let mut writer = Self {
            disk: Some(DiskThread::start(slot.clone())),
            slot,
            region: region.clone(),
            buffer: Vec::with_capacity(WRITE),
            blocks: 1,
            leaves: Vec::new(),
            bytes: 0,
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

    /// Waits until all data is written, so that it can be read. Nothing but metadata may follow.
    pub fn settle(&mut self) -> Result<(), WriteError> {
        self.drain(BLOCK)?;
        let Some(disk) = self.disk.take() else { return Ok(()) };
        self.leaves = vec![[0; DIGEST]];
        self.leaves.extend(disk.end().map_err(|source| self.disk_error("write", source))?);
        Ok(())
    }

    /// Reads data that was settled, from a byte of the slot on.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<(), WriteError> {
        let read = self.slot.read_at(at, buffer);
        read.map_err(|source| self.disk_error("read", source))
    }

    /// Writes the metadata of `tree`, the hash tree, and last, after a flush, block 0; then reads everything back.
    pub fn finish(&mut self, tree: &Tree, uuid: [u8; 16]) -> Result<Filesystem, WriteError> {
        self.settle()?;
        let metadata = erofs::encode(tree, self.next_block()?, uuid)?;
        for part in metadata.blocks.chunks(WRITE) {
            let at = self.blocks as u64 * BLOCK_BYTES;
            self.check_room(at + part.len() as u64)?;
            self.write_at("write the metadata of", at, part)?;
            self.leaves.extend(part.chunks(BLOCK).map(leaf));
            self.blocks += part.len() / BLOCK;
        }
        self.leaves[0] = leaf(&metadata.first_block);
        let length = self.blocks as u64 * BLOCK_BYTES;
        let (hash_tree, root) = verity::hash_tree(&self.leaves);
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
    pub fn seal(mut self, record: &SlotRecord) -> Result<(), WriteError> {
        self.write_at("write the record of", self.record_at()?, &record.encode()?)?;
        self.flush()
    }

    /// Bytes that were written to the slot so far.
    pub fn bytes_written(&self) -> u64 {
        self.bytes
    }

    fn next_block(&self) -> Result<u32, WriteError> {
        let block = self.blocks + self.buffer.len() / BLOCK;
        Ok(u32::try_from(block).map_err(|_| ErofsError::TooManyBlocks)?)
    }

    /// Hands the buffer's whole blocks to the disk if there are at least `least` bytes of them.
    fn drain(&mut self, least: usize) -> Result<(), WriteError> {
        let whole = self.buffer.len() / BLOCK * BLOCK;
        if whole < least {
            return Ok(());
        }
        let at = self.blocks as u64 * BLOCK_BYTES;
        self.check_room(at + whole as u64)?;
        let Some(disk) = &mut self.disk else {
            return Err(self.disk_error("write", io::Error::other("data after the data was settled")));
        };
        let mut next = disk.spare(WRITE);
        next.extend_from_slice(&self.buffer[whole..]);
        let mut part = mem::replace(&mut self.buffer, next);
        part.truncate(whole);
        self.blocks += whole / BLOCK;
        self.bytes += whole as u64;
        if disk.write(at, part) {
            return Ok(());
        }
        // It stopped early, so that ending it tells why.
        let ended = self.disk.take().map(DiskThread::end);
        let source = ended.and_then(Result::err).unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        Err(self.disk_error("write", source))
    }

    fn read_back(&self) -> Result<(), WriteError> {
        match verity::first_difference(&self.slot, &self.leaves) {
            Err(source) => Err(self.disk_error("read back", source)),
            Ok(Some(at)) => Err(WriteError::ReadBack { slot: self.region.name.clone(), at }),
            Ok(None) => Ok(()),
        }
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

    fn write_at(&mut self, operation: &'static str, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.bytes += bytes.len() as u64;
        let written = self.slot.write_at(at, bytes);
        written.map_err(|source| self.disk_error(operation, source))
    }

    fn flush(&self) -> Result<(), WriteError> {
        self.slot.flush().map_err(|source| self.disk_error("flush", source))
    }

    fn disk_error(&self, operation: &'static str, source: io::Error) -> WriteError {
        WriteError::Disk { operation, slot: self.region.name.clone(), source }
    }
}
