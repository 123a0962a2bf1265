//! The thread that reads back what was written.
//!
//! Each block is compared by a 64-bit checksum (XXH3) of the same bytes from which its leaf of the hash tree was taken.
//! A disk that lies has no will: what it breaks goes unseen once in 2^64 blocks, and the comparison costs a tenth of
//! hashing everything a second time, on machines that have no core to spare.

use std::sync::mpsc::Receiver;

use evenkeel_node_agent_core::erofs::BLOCK;
use twox_hash::XxHash3_64;

use super::WRITE;
use crate::{
    disk::{Window, aligned::AlignedBuffer},
    slot::WriteError,
};

/// What must be read from a place, as the checksum of each block.
#[derive(Debug)]
pub(in crate::slot) struct Check {
    /// Bytes from the start of the slot.
    pub at: u64,
    /// At most as many as there are blocks in [`WRITE`] bytes.
    pub sums: Vec<u64>,
}

/// The checksum of each block.
pub(in crate::slot) fn sums(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(BLOCK).map(XxHash3_64::oneshot).collect()
}

/// Reads back until nothing more is written. What would come from a cache is left for after the flush, and given back.
pub(super) fn work(slot: &Window, name: &str, queue: &Receiver<Check>) -> Result<Vec<Check>, WriteError> {
    let mut buffer = AlignedBuffer::new(WRITE);
    let mut later = Vec::new();
    while let Ok(one) = queue.recv() {
        if slot.is_direct() {
            check(slot, name, &one, &mut buffer)?;
        } else {
            later.push(one);
        }
    }
    Ok(later)
}

/// Reads and compares.
pub(in crate::slot) fn check(
    slot: &Window,
    name: &str,
    check: &Check,
    buffer: &mut AlignedBuffer,
) -> Result<(), WriteError> {
    let Check { at, sums: expected } = check;
    buffer.set_length(expected.len() * BLOCK);
    slot.read_at(*at, buffer).map_err(|source| WriteError::Disk {
        operation: "read back",
        slot: name.to_owned(),
        source,
    })?;
    let differs = sums(buffer).iter().zip(expected).position(|(found, expected)| found != expected);
    let Some(block) = differs else { return Ok(()) };
    Err(WriteError::ReadBack { slot: name.to_owned(), at: at + (block * BLOCK) as u64 })
}
