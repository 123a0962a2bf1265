//! Where a layer's chunk table lies, by the annotations of the layer's descriptor in the manifest.
//!
//! | annotation | value |
//! |---|---|
//! | `io.github.containers.zstd-chunked.manifest-position` | `OFFSET:LENGTH:INFLATED:1`, of the table; the last number is its kind |
//! | `io.github.containers.zstd-chunked.manifest-checksum` | `sha256:…` of the table as it lies there, compressed |
//! | `io.github.containers.zstd-chunked.tarsplit-position` | `OFFSET:LENGTH:INFLATED`, of the tar-split; its digest is in the table |
//!
//! Numbers are decimal, offsets are bytes from the start of the blob.

use std::collections::BTreeMap;

use super::BadTable;
use crate::digest::unhex;

const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const TAR_SPLIT: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// Kind of a table that lists files as CRFS did, the only one there is.
const LISTS_FILES: u64 = 1;
/// Compressed bytes of a table or a tar-split, which are kept in memory: 150,000 files have some 18 MB, as two digests
/// of each do not compress.
pub const COMPRESSED_MAX: u64 = 32 << 20;
/// Inflated bytes, which are only passed through: 150,000 files have some 200 MB. A bound on time.
pub const INFLATED_MAX: u64 = 1 << 30;

/// Bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Bytes, compressed.
    pub length: u64,
    /// Bytes when they are inflated.
    pub inflated: u64,
}

/// Where a table and its tar-split lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The table.
    pub table: Span,
    /// SHA-256 of the compressed table.
    pub checksum: [u8; 32],
    /// The tar-split.
    pub tar_split: Span,
}

impl Position {
    /// What the annotations of a layer of `size` bytes say; `None` if they name no table.
    pub fn find(annotations: &BTreeMap<String, String>, size: u64) -> Result<Option<Self>, BadTable> {
        let Some(position) = annotations.get(POSITION) else { return Ok(None) };
        let (table, kind) = position.rsplit_once(':').unwrap_or((position, ""));
        if number(kind) != Some(LISTS_FILES) {
            return Err(BadTable::new(format!("{POSITION} names a kind of table that is not known")));
        }
        let checksum = annotations.get(CHECKSUM).and_then(|digest| unhex(digest));
        let checksum = checksum.ok_or_else(|| BadTable::new(format!("{CHECKSUM} is no sha256 digest")))?;
        let tar_split = annotations.get(TAR_SPLIT).ok_or(BadTable::new(
            "it has no tar-split, without which the layer cannot be put together as it was",
        ))?;
        let (table, tar_split) = (span(POSITION, table, size)?, span(TAR_SPLIT, tar_split, size)?);
        Ok(Some(Self { table, checksum, tar_split }))
    }

    /// Bytes that have to be fetched to know what else must be.
    pub fn bytes(&self) -> u64 {
        self.table.length + self.tar_split.length
    }

    /// Where the data of files ends.
    pub fn data_end(&self) -> u64 {
        self.table.offset.min(self.tar_split.offset)
    }
}

fn span(name: &str, value: &str, size: u64) -> Result<Span, BadTable> {
    let wrong = || BadTable::new(format!("{name} does not name a part of the layer"));
    let numbers: Option<Vec<u64>> = value.splitn(4, ':').map(number).collect();
    let Some(&[offset, length, inflated]) = numbers.as_deref() else { return Err(wrong()) };
    let inside = offset.checked_add(length).is_some_and(|end| end <= size);
    if !inside || offset == 0 || length == 0 {
        return Err(wrong());
    }
    if length > COMPRESSED_MAX || inflated > INFLATED_MAX {
        return Err(BadTable::new(format!("what {name} names is larger than 32 MiB, or 1 GiB inflated")));
    }
    Ok(Span { offset, length, inflated })
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
