//! A slot's place on the disk: the only way to its bytes.

use std::{io, path::PathBuf, sync::Arc};

use evenkeel_node_agent_core::{
    digest::hex,
    slot_record::{RECORD_LENGTH, RecordError, SlotRecord},
};
use sha2::{Digest as _, Sha256};

use super::{Access, BlockDevice, FileDevice, Window, open};

/// Bytes of the superblock's block, which the slot record names by its hash.
const SUPERBLOCK_LENGTH: usize = 4096;

/// A slot's place: `length` bytes at `offset` of `path`.
#[derive(Clone, Debug)]
pub struct SlotRegion {
    /// `a`, `b`, `recovery`.
    pub name: String,
    /// The file to open: the disk file itself, or the partition's device node.
    pub path: PathBuf,
    /// What is used in place of `path`, where a device was given and not a path.
    pub device: Option<Arc<dyn BlockDevice>>,
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
    /// The disk does not give its record, or the superblock that it names.
    #[error(
        "slot {slot} cannot be read at byte {at} of the slot: stage an image into it, which writes that place anew"
    )]
    Unreadable {
        /// The slot.
        slot: String,
        /// Bytes from the start of the slot.
        at: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk did not answer.
    #[error(
        "{operation} slot {slot} at byte {offset} of {path}: is the disk there and writable by this user?"
    )]
    Io {
        /// `open`, …
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
    /// Opens the slot for reading. Places are bytes from the slot's start.
    pub fn open_ro(&self) -> io::Result<Window> {
        self.open(Access::Read)
    }

    /// Opens the slot for reading and writing, alone. A partition that is mounted is refused by the kernel (busy), so that the
    /// slot that runs can never be written; so is one that another program writes, and as well in a disk's file.
    pub fn open_rw(&self) -> io::Result<Window> {
        if self.device.is_some() {
            return self.open(Access::Write);
        }
        let device = FileDevice::open(&self.path, Access::Write)?;
        if device.is_file()? {
            device.claim(self.offset, self.length)?;
        }
        Ok(Window::new(Arc::new(device), self.offset, self.length))
    }

    fn open(&self, access: Access) -> io::Result<Window> {
        Ok(Window::new(open(&self.path, self.device.as_ref(), access)?, self.offset, self.length))
    }

    /// Fails when the slot cannot be written: it is mounted, or this user may not.
    pub fn check_writable(&self) -> Result<(), RegionError> {
        self.open_rw().map(|_| ()).map_err(|source| self.failed("open for writing", source))
    }

    /// The record of a complete slot: it parses, and the superblock that it names is there.
    pub fn read_record(&self) -> Result<SlotRecord, RegionError> {
        let slot = self.open_ro().map_err(|source| self.failed("open", source))?;
        let mut bytes = vec![0; usize::try_from(RECORD_LENGTH).expect("64 KiB fits every usize")];
        let unreadable = |at| move |source| RegionError::Unreadable { slot: self.name.clone(), at, source };
        slot.read_at(self.record_at(), &mut bytes).map_err(unreadable(self.record_at()))?;
        let record = SlotRecord::decode(&bytes).map_err(|source| self.bad_record(source))?;
        let mut superblock = [0; SUPERBLOCK_LENGTH];
        slot.read_at(0, &mut superblock).map_err(unreadable(0))?;
        if hex(&Sha256::digest(superblock)) != record.superblock_sha256 {
            return Err(self.bad_record(RecordError::Damaged(
                "the superblock is not the one that it names: stage the image again".to_owned(),
            )));
        }
        Ok(record)
    }

    /// Makes the slot incomplete, durably. The first step of every write into it.
    pub fn wipe_record(&self) -> Result<(), RegionError> {
        let slot = self.open_rw().map_err(|source| self.failed("open for writing", source))?;
        slot.write_at(self.record_at(), &[0; SUPERBLOCK_LENGTH])
            .and_then(|()| slot.flush())
            .map_err(|source| self.failed("wipe the record of", source))
    }

    /// Writes the record of a slot whose bytes are there: what makes it complete, and with that the last step.
    pub fn write_record(&self, record: &SlotRecord) -> Result<(), RegionError> {
        let bytes = record.encode().map_err(|source| self.bad_record(source))?;
        let slot = self.open_rw().map_err(|source| self.failed("open for writing", source))?;
        slot.write_at(self.record_at(), &bytes)
            .and_then(|()| slot.flush())
            .map_err(|source| self.failed("write the record of", source))
    }

    /// Bytes from the start of the slot to its record.
    pub fn record_at(&self) -> u64 {
        self.length.saturating_sub(RECORD_LENGTH)
    }

    fn bad_record(&self, source: RecordError) -> RegionError {
        RegionError::Record { slot: self.name.clone(), source }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> RegionError {
        let (slot, path) = (self.name.clone(), self.path.clone());
        RegionError::Io { operation, slot, offset: self.offset, path, source }
    }
}
