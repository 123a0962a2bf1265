//! Layers in the form of eStargz, as github.com/containerd/stargz-snapshotter writes it (`estargz/types.go`, `estargz/gzip.go`).
//!
//! The blob is an ordinary layer compressed by gzip, in which the data of each file, or of each chunk of a large one, begins a
//! member. Behind the data of a member is what the tar has before the next file's data: padding, and headers. The last two
//! members are:
//!
//! | member | content |
//! |---|---|
//! | table | the tar's last entry, `stargz.index.json`, and the tar's end; JSON as of zstd:chunked, see [`super::table`] |
//! | footer | nothing, in 51 bytes; its extra field (RFC 1952, 2.3.1.1) has the subfield `SG` with the table's offset in 16 hexadecimal digits and `STARGZ` |
//!
//! The descriptor's annotation `containerd.io/snapshot/stargz/toc.digest` is the SHA-256 of the table's JSON.
//!
//! There is no tar-split, and headers cannot be fetched without the data before them. So a layer is put together only where
//! its headers can be told from the table ([`super::predicted`]): where its tar was written by a usual program, with times in
//! whole seconds, as a table has no others.

use std::{collections::BTreeMap, io::Read};

use super::{
    BadTable,
    position::{COMPRESSED_MAX, INFLATED_MAX},
    tar_header::BLOCK,
};
use crate::digest::unhex;

/// The annotation with the digest of the table's JSON.
pub const ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Bytes of the footer.
pub const FOOTER_BYTES: u64 = 51;
/// Path of the table in the tar.
pub const TABLE_PATH: &str = "stargz.index.json";

/// What is the same in each footer: a gzip header with an extra field of 26 bytes (2 · 2 for the subfield's name and length, 16 digits,
/// 6 letters), and behind that nothing, not compressed.
const BEFORE: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0];
const BEHIND: &[u8] = b"STARGZ\x01\x00\x00\xff\xff\0\0\0\0\0\0\0\0";
const DIGITS: usize = 16;

/// The SHA-256 of the table's JSON that a layer's annotations name; `None` if they name none.
pub fn table_digest(annotations: &BTreeMap<String, String>) -> Result<Option<[u8; 32]>, BadTable> {
    let Some(digest) = annotations.get(ANNOTATION) else { return Ok(None) };
    let digest = unhex(digest).ok_or_else(|| BadTable::new(format!("{ANNOTATION} is no sha256 digest")))?;
    Ok(Some(digest))
}

/// Where the table's member begins in a layer of `size` bytes that ends with this footer. It ends where the footer begins.
pub fn table_offset(footer: &[u8], size: u64) -> Result<u64, BadTable> {
    let digits = footer.strip_prefix(&BEFORE).and_then(|rest| rest.strip_suffix(BEHIND));
    let digits = digits.filter(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit));
    let offset = digits.and_then(|digits| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
    let offset = offset.ok_or(BadTable::new("the layer does not end with the footer of an eStargz"))?;
    let length = size.checked_sub(FOOTER_BYTES).and_then(|end| end.checked_sub(offset));
    match length.filter(|length| *length > 0 && offset > 0) {
        None => Err(BadTable::new("the footer does not name a place in the layer")),
        Some(..=COMPRESSED_MAX) => Ok(offset),
        Some(_) => Err(BadTable::new("it is larger than 32 MiB")),
    }
}

/// The table's JSON, out of its inflated member.
pub fn json<R: Read>(mut member: R) -> Result<impl Read, BadTable> {
    let mut header = [0; BLOCK];
    let short = |_| BadTable::new("there is no table where the footer says");
    member.read_exact(&mut header).map_err(short)?;
    let length = table_length(&header).ok_or(BadTable::new("there is no table where the footer says"))?;
    if length > INFLATED_MAX {
        return Err(BadTable::new("it is larger than 1 GiB"));
    }
    Ok(member.take(length))
}

/// Bytes of the table's JSON, if this is the header of its entry: the tar's last one, and in layers that BuildKit made it comes
/// behind the tar's end, where nobody who unpacks the layer looks.
pub fn table_length(header: &[u8; BLOCK]) -> Option<u64> {
    let (name, size) = (&header[..100], &header[124..136]);
    let named = name.strip_prefix(TABLE_PATH.as_bytes())?.iter().all(|byte| *byte == 0);
    let digits = size.split(|byte| matches!(byte, 0 | b' ')).next()?;
    let length = u64::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?;
    (named && header[156] == b'0').then_some(length)
}
