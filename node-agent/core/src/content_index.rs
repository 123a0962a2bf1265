//! The content index: what each layer put into a slot, so that the layer can be had again without its blob.
//!
//! One *section* for each layer, at the slot's end: the base layer's ends where the slot record begins, and each
//! other's ends where the section of the layer below it begins. A section is written when its layer's data is, so that
//! staging that was cut off finds the layers that it had finished. The data of a layer is one run of blocks; it holds
//! every file of the layer in the order of its entries, each from a block of its own on, also those that a later layer
//! hides.
//!
//! A section, all integers little-endian, its length a multiple of 4096 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `EKLAYER1` |
//! | 8 | 32 | SHA-256 of the layer's blob |
//! | 40 | 32 | SHA-256 of its tar stream (diff ID) |
//! | 72 | 4 | first block of its data |
//! | 76 | 4 | blocks of its data |
//! | 80 | 32 | SHA-256 over the SHA-256 of each of these blocks |
//! | 112 | 4 | entries |
//! | 116 | n | the entries, see [`entries`] |
//! | 116 + n | m | zeros |
//! | end - 64 | 8 | magic `EKLAYEND` |
//! | end - 56 | 4 | bytes of the section |
//! | end - 52 | 4 | 116 + n |
//! | end - 48 | 32 | SHA-256 of the first 116 + n bytes |
//! | end - 16 | 16 | zeros |

pub mod entries;
#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};

use crate::{digest::hex, erofs::BLOCK};
use entries::{EntriesBuilder, Reader};

/// Bytes at a section's end that say how long it is.
pub const FOOTER: usize = 64;
/// Bytes of one section. The entries of the largest images that are taken have 64 MiB of text, and numbers.
pub const SECTION_BYTES_MAX: usize = 96 << 20;
const MAGIC: &[u8; 8] = b"EKLAYER1";
const END: &[u8; 8] = b"EKLAYEND";
const HEADER: usize = 116;
const FIRST_BLOCK: std::ops::Range<usize> = 72..76;
const DATA_HASH: std::ops::Range<usize> = 80..112;

/// Why bytes are no section.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum IndexError {
    /// There is none.
    #[error("there is no section of the content index")]
    Absent,
    /// It was damaged.
    #[error("the content index is damaged: {0}")]
    Damaged(&'static str),
}

/// Where a layer's data lies, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerData {
    /// `sha256:…` of the blob.
    pub digest: String,
    /// `sha256:…` of the tar stream.
    pub diff_id: String,
    /// First block.
    pub first_block: u32,
    /// Blocks.
    pub blocks: u32,
    /// SHA-256 over the SHA-256 of each block.
    pub hash: [u8; 32],
}

/// A section that was read and whose checksum holds.
#[derive(Clone, Debug)]
pub struct Section {
    /// The layer's data.
    pub data: LayerData,
    /// SHA-256 of the section's bytes, lower-case hex.
    pub sha256: String,
    count: u32,
    bytes: Vec<u8>,
    end: usize,
}

/// Bytes of the section that ends with `footer`.
pub fn section_length(footer: &[u8]) -> Result<usize, IndexError> {
    if footer.len() != FOOTER || footer[..8] != *END {
        return Err(IndexError::Absent);
    }
    let length = u32_at(footer, 8) as usize;
    if !(BLOCK..=SECTION_BYTES_MAX).contains(&length) || !length.is_multiple_of(BLOCK) {
        return Err(IndexError::Damaged("the length of a section is impossible"));
    }
    Ok(length)
}

impl Section {
    /// Reads a whole section.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, IndexError> {
        let damaged = IndexError::Damaged;
        let footer_at = bytes.len().checked_sub(FOOTER).ok_or(damaged("a section is cut off"))?;
        let footer = &bytes[footer_at..];
        if section_length(footer)? != bytes.len() {
            return Err(damaged("a section has another length than it says"));
        }
        let end = u32_at(footer, 12) as usize;
        if !(HEADER..=footer_at).contains(&end) || bytes[..8] != *MAGIC {
            return Err(damaged("a section does not begin as it should"));
        }
        if Sha256::digest(&bytes[..end])[..] != footer[16..48] {
            return Err(damaged("the checksum of a section does not hold"));
        }
        let hash = bytes[DATA_HASH].try_into().map_err(|_| damaged("a section is cut off"))?;
        let data = LayerData {
            digest: format!("sha256:{}", hex(&bytes[8..40])),
            diff_id: format!("sha256:{}", hex(&bytes[40..72])),
            first_block: u32_at(&bytes, 72),
            blocks: u32_at(&bytes, 76),
            hash,
        };
        if data.first_block == 0 || data.first_block.checked_add(data.blocks).is_none() {
            return Err(damaged("a layer's data lies where none can be"));
        }
        let (count, sha256) = (u32_at(&bytes, 112), hex(&Sha256::digest(&bytes)));
        Ok(Self { data, sha256, count, bytes, end })
    }

    /// Bytes of the section in the slot.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// The layer's entries, in its order, with their data at `first_block`.
    pub fn entries(&self, first_block: u32) -> Reader<'_> {
        Reader::new(&self.bytes[HEADER..self.end], self.count, first_block, self.data.blocks)
    }
}

impl Section {
    /// The section of the same layer with its data at another place.
    pub fn moved(mut self, first_block: u32) -> Draft {
        self.bytes[FIRST_BLOCK].copy_from_slice(&first_block.to_le_bytes());
        Draft { bytes: self.bytes, end: self.end }
    }
}

/// A section that lacks nothing but the hash of its data.
#[derive(Clone, Debug)]
pub struct Draft {
    bytes: Vec<u8>,
    end: usize,
}

impl Draft {
    /// The section of a layer with these `entries`; `digest` and `diff_id` are SHA-256 sums. `None` when it is too long
    /// to be kept.
    pub fn new(
        digest: [u8; 32],
        diff_id: [u8; 32],
        first_block: u32,
        blocks: u32,
        entries: EntriesBuilder,
    ) -> Option<Self> {
        let (count, entries) = entries.finish()?;
        let end = HEADER + entries.len();
        let length = (end + FOOTER).next_multiple_of(BLOCK);
        if length > SECTION_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(MAGIC);
        bytes.extend(digest);
        bytes.extend(diff_id);
        bytes.extend(first_block.to_le_bytes());
        bytes.extend(blocks.to_le_bytes());
        bytes.extend([0; 32]);
        bytes.extend(count.to_le_bytes());
        bytes.extend(entries);
        bytes.resize(length, 0);
        Some(Self { bytes, end })
    }

    /// Bytes of the section.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// The whole section, with the SHA-256 over the SHA-256 of each block of its data.
    pub fn finish(mut self, data: [u8; 32]) -> Vec<u8> {
        self.bytes[DATA_HASH].copy_from_slice(&data);
        let sum = Sha256::digest(&self.bytes[..self.end]);
        let footer_at = self.bytes.len() - FOOTER;
        let word = |number: usize| u32::try_from(number).expect("at most SECTION_BYTES_MAX").to_le_bytes();
        let (length, end) = (word(self.bytes.len()), word(self.end));
        let footer = &mut self.bytes[footer_at..];
        footer[..8].copy_from_slice(END);
        footer[8..12].copy_from_slice(&length);
        footer[12..16].copy_from_slice(&end);
        footer[16..48].copy_from_slice(&sum);
        self.bytes
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
