//! A window onto the disk: the only way to a slot's bytes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use evenkeel_node_agent_core::{
    digest::hex,
    slot_record::{RECORD_LENGTH, RecordError, SlotRecord},
};
use sha2::{Digest as _, Sha256};

/// Bytes of the superblock's block, which the slot record names by its hash.
const SUPERBLOCK_LENGTH: usize = 4096;

/// A slot's place: `length` bytes at `offset` of `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRegion {
    /// `a`, `b`, `recovery`.
    pub name: String,
    /// The file to open: the disk file itself, or the partition's device node.
    pub path: PathBuf,
    /// Bytes from the start of `path`; 0 for a device node.
    pub offset: u64,
    /// Bytes of the slot.
    pub length: u64,
    /// Bytes from the start of the disk.
    pub disk_offset: u64,
    /// The partition's GUID, lower-case.
    pub part_uuid: String,
}

/// Why a slot's record could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The slot holds no complete image.
    #[error("slot {slot} holds no complete image: stage one into it first")]
    Record {
        /// The slot.
        slot: String,
        /// What is wrong.
        source: RecordError,
    },
    /// The disk did not answer.
    #[error(
        "{operation} slot {slot} at byte {offset} of {path}: is the disk there and writable by this user?"
    )]
    Io {
        /// `open`, `read`, …
        operation: &'static str,
        /// The slot.
        slot: String,
        /// Bytes from the start of `path`.
        offset: u64,
        /// The disk or partition.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SlotRegion {
    /// Opens the slot's file for reading. Positions are those of `path`: add `offset`.
    pub fn open_ro(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Opens the slot's file for reading and writing. A partition that is mounted is refused by the kernel (busy), so
    /// that the slot that runs can never be written.
    pub fn open_rw(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if std::fs::metadata(&self.path)?.file_type().is_block_device() {
            options.custom_flags(nix::libc::O_EXCL);
        }
        options.open(&self.path)
    }

    /// Fails when the slot cannot be written: it is mounted, or this user may not.
    pub fn check_writable(&self) -> Result<(), RegionError> {
        self.open_rw().map(|_| ()).map_err(|source| self.failed("open for writing", source))
    }

    /// The record of a complete slot: it parses, and the superblock that it names is there.
    pub fn read_record(&self) -> Result<SlotRecord, RegionError> {
        let file = self.open_ro().map_err(|source| self.failed("open", source))?;
        let mut bytes = vec![0; usize::try_from(RECORD_LENGTH).expect("64 KiB fits every usize")];
        file.read_exact_at(&mut bytes, self.record_offset()).map_err(|source| self.failed("read", source))?;
        let record = SlotRecord::decode(&bytes).map_err(|source| self.bad_record(source))?;
        let mut superblock = [0; SUPERBLOCK_LENGTH];
        file.read_exact_at(&mut superblock, self.offset).map_err(|source| self.failed("read", source))?;
        if hex(&Sha256::digest(superblock)) != record.superblock_sha256 {
            return Err(self.bad_record(RecordError::Damaged(
                "the superblock is not the one that it names: stage the image again".to_owned(),
            )));
        }
        Ok(record)
    }

    /// Makes the slot incomplete, durably. The first step of every write into it.
    pub fn wipe_record(&self) -> Result<(), RegionError> {
        let file = self.open_rw().map_err(|source| self.failed("open for writing", source))?;
        file.write_all_at(&[0; SUPERBLOCK_LENGTH], self.record_offset())
            .and_then(|()| file.sync_data())
            .map_err(|source| self.failed("wipe the record of", source))
    }

    /// Bytes from the start of `path` to the slot record.
    pub fn record_offset(&self) -> u64 {
        self.offset + self.length - RECORD_LENGTH
    }

    fn bad_record(&self, source: RecordError) -> RegionError {
        RegionError::Record { slot: self.name.clone(), source }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> RegionError {
        let (slot, path) = (self.name.clone(), self.path.clone());
        RegionError::Io { operation, slot, offset: self.offset, path, source }
    }
}
