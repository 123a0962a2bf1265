//! One entry of a layer: from its header to what the tree takes.

use std::{borrow::Cow, collections::BTreeMap, io};

use evenkeel_node_agent_core::{
    erofs::{self, ErofsError},
    tree::{Attributes, Kind, TreeError},
};
use tar::{EntryType, Header};

use super::pax::{Extended, HEADER_BYTES_MAX, PaxError};
use crate::printable::printable;

/// Bytes of a path that an error shows.
const SHOWN_BYTES: usize = 256;
/// The kernel's word for nobody at all; no file can belong to it.
const NO_ID: u32 = u32::MAX;

/// Why an entry is refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It has no place in the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The file system has no place for it.
    #[error(transparent)]
    Erofs(#[from] ErofsError),
    /// Its extended header.
    #[error(transparent)]
    Pax(#[from] PaxError),
    /// Its header.
    #[error("its header is malformed")]
    Header(#[source] io::Error),
    /// Its extended headers are too long.
    #[error("its extended headers have more than {HEADER_BYTES_MAX} bytes")]
    HeaderTooLong,
    /// An extended header, and then the end.
    #[error("it is an extended header, and the layer ends where its entry should be")]
    NoEntry,
    /// Its extended size and its header's differ.
    #[error("its size is given twice, and differently, or is above 8 GiB")]
    Size,
    /// A size where there is no data: programs differ on whether there is some then.
    #[error("it has no data by its type, and a size all the same")]
    SizeOfNothing,
    /// The layer ends, or cannot be inflated.
    #[error("its data ends early or cannot be read")]
    Data(#[source] io::Error),
    /// A kind of entry that no image should have.
    #[error("its type {0:?} is not supported")]
    Type(EntryType),
}

/// What an entry is.
pub(super) enum What {
    /// A file with so many bytes of data.
    File(u64),
    /// Another name of the file that this path names.
    HardLink(Vec<u8>),
    /// Anything else.
    Other(Kind),
}

/// The header as the library understands it. To other programs `ustar` and a zero byte say enough, whatever version follows (POSIX
/// has `00`); the library takes one of another version for a header before ustar, and would not see the path's first part.
/// Star's headers have times behind 131 bytes of that part (`tar` and a zero byte at the end say so).
pub(super) fn understood(header: &Header) -> Header {
    let mut header = header.clone();
    let bytes = header.as_mut_bytes();
    if bytes[257..263] == *b"ustar\0" {
        bytes[263..265].copy_from_slice(b"00");
        if bytes[508..] == *b"tar\0" {
            bytes[345 + 131] = 0;
        }
    }
    header
}

/// A path for people: short, and without what would command a terminal.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(SHOWN_BYTES)]);
    printable(&text, SHOWN_BYTES) + if path.len() > SHOWN_BYTES { "…" } else { "" }
}

/// The bytes behind the header, which the library reads without a look at the field's higher half.
pub(super) fn size(header: &Header) -> Result<u64, EntryError> {
    let field = &header.as_old().size;
    if base_256(field).is_some_and(|number| !number.is_ok_and(|number| number >= 0)) {
        return Err(EntryError::Header(io::Error::other("its size is negative, or has more than 63 bits")));
    }
    header.entry_size().map_err(EntryError::Header)
}

/// What the entry is, with what an extended header said before it.
pub(super) fn what(header: &Header, path: &[u8], extended: &Extended) -> Result<What, EntryError> {
    let link = || extended.link.clone().or_else(|| header.link_name_bytes().map(Cow::into_owned));
    let size = size(header)?;
    if extended.size.is_some_and(|other| other != size) {
        return Err(EntryError::Size);
    }
    let what = match header.entry_type() {
        // So said tar before it had a type for them.
        EntryType::Regular if path.ends_with(b"/") => What::Other(Kind::Directory(BTreeMap::new())),
        EntryType::Regular | EntryType::Continuous => return Ok(What::File(size)),
        EntryType::Directory => What::Other(Kind::Directory(BTreeMap::new())),
        EntryType::Symlink => What::Other(Kind::Symlink(link().unwrap_or_default())),
        EntryType::Char => {
            let (major, minor) = device(header)?;
            What::Other(Kind::CharDevice(major, minor))
        }
        EntryType::Block => {
            let (major, minor) = device(header)?;
            What::Other(Kind::BlockDevice(major, minor))
        }
        EntryType::Fifo => What::Other(Kind::Fifo),
        EntryType::Link => What::HardLink(link().unwrap_or_default()),
        other => return Err(EntryError::Type(other)),
    };
    if size == 0 { Ok(what) } else { Err(EntryError::SizeOfNothing) }
}

/// What every inode has; checked, like `kind`, against what the file system holds.
pub(super) fn attributes(header: &Header, extended: Extended, kind: &Kind) -> Result<Attributes, EntryError> {
    let fields = header.as_old();
    let wrong = |field: &str| EntryError::Pax(PaxError::Number(field.to_owned()));
    let id = |said: Option<u32>, field: &[u8], id: io::Result<u64>| -> Result<u32, EntryError> {
        let id = said.map_or_else(|| number(field, id), |said| Ok(u64::from(said)))?;
        u32::try_from(id).ok().filter(|id| *id != NO_ID).ok_or_else(|| wrong("owner"))
    };
    let (mtime, mtime_nanoseconds) = match (extended.mtime, base_256(&fields.mtime)) {
        (Some(time), _) => time,
        (None, Some(seconds)) => (seconds.map_err(|_| wrong("mtime"))?, 0),
        (None, None) => {
            let seconds = number(&fields.mtime, header.mtime())?;
            (i64::try_from(seconds).map_err(|_| wrong("mtime"))?, 0)
        }
    };
    let mode = number(&fields.mode, header.mode())? & 0o7777;
    let attributes = Attributes {
        mode: u16::try_from(mode).expect("twelve bits"),
        uid: id(extended.uid, &fields.uid, header.uid())?,
        gid: id(extended.gid, &fields.gid, header.gid())?,
        mtime,
        mtime_nanoseconds,
        xattrs: extended.xattrs,
    };
    erofs::check(kind, &attributes)?;
    Ok(attributes)
}

fn device(header: &Header) -> Result<(u32, u32), EntryError> {
    let fields = header.as_ustar().map(|fields| (fields.dev_major, fields.dev_minor));
    let fields = fields.or_else(|| header.as_gnu().map(|fields| (fields.dev_major, fields.dev_minor)));
    // Before ustar a header had no place for them.
    let Some((major, minor)) = fields else { return Ok((0, 0)) };
    let part = |field: &[u8], number: io::Result<Option<u32>>| -> Result<u32, EntryError> {
        Ok(self::number(field, number)?.unwrap_or(0))
    };
    Ok((part(&major, header.device_major())?, part(&minor, header.device_minor())?))
}

/// A numeric field; one that was left blank is zero, as other programs read it.
fn number<T: Default>(field: &[u8], parsed: io::Result<T>) -> Result<T, EntryError> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(T::default());
    }
    parsed.map_err(EntryError::Header)
}

#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// GNU's numbers of base 256: the first bit is set as a mark, the others are a number in two's complement, high byte
/// first. `None` when the field is not of that form, an error when the number has more than 64 bits.
fn base_256(field: &[u8; 12]) -> Option<Result<i64, TooLong>> {
    let (high, low) = field.split_at(4);
    let marked = high[0] & 0x80 != 0;
    let negative = high[0] & 0x40 != 0;
    let mut low_bytes = [0; 8];
    low_bytes.copy_from_slice(low);
    let value = i64::from_be_bytes(low_bytes);
    let extends = match high {
        [0x80, 0, 0, 0] => !negative && value >= 0,
        [0xff, 0xff, 0xff, 0xff] => value < 0,
        _ => false,
    };
    marked.then_some(if extends { Ok(value) } else { Err(TooLong) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_base_256() {
        let field = |high: [u8; 4], low: i64| {
            let mut field = [0; 12];
            field[..4].copy_from_slice(&high);
            field[4..].copy_from_slice(&low.to_be_bytes());
            base_256(&field)
        };
        assert_eq!(field([0x80, 0, 0, 0], 1 << 40), Some(Ok(1 << 40)));
        assert_eq!(field([0xff; 4], -86_400), Some(Ok(-86_400)));
        assert_eq!(field([0x80, 0, 0, 1], 5), Some(Err(TooLong)), "higher bits must not be passed over");
        assert_eq!(field([0x80, 0, 0, 0], -1), Some(Err(TooLong)));
        assert_eq!(base_256(b"00000000017\0"), None);
    }

    #[test]
    fn the_first_part_of_a_path_counts_whatever_the_headers_version() {
        for version in [*b"00", [0; 2], *b"  "] {
            let mut header = Header::new_ustar();
            header.set_path("dir/sub/name").unwrap();
            let bytes = header.as_mut_bytes();
            bytes[..12].copy_from_slice(b"name\0\0\0\0\0\0\0\0");
            bytes[345..352].copy_from_slice(b"dir/sub");
            bytes[263..265].copy_from_slice(&version);
            assert_eq!(understood(&header).path_bytes().as_ref(), b"dir/sub/name", "{version:?}");
        }
        let mut star = Header::new_ustar();
        let bytes = star.as_mut_bytes();
        bytes[..4].copy_from_slice(b"name");
        bytes[345..345 + 131].fill(b'd');
        bytes[345 + 131..500].fill(b'7');
        bytes[508..].copy_from_slice(b"tar\0");
        assert_eq!(understood(&star).path_bytes().len(), 131 + 1 + 4);
    }

    #[test]
    fn names_are_shown_short_and_tame() {
        assert_eq!(shown("etc/ä\u{1b}[2J".as_bytes()), "etc/ä\\u{1b}[2J");
        assert!(shown(&[b'x'; 5000]).len() < 300);
    }
}
