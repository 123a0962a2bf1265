//! The headers of a tar, byte by byte as those programs write them that nearly all layers are from.
//!
//! | | Go's `archive/tar`, where no format is asked for | GNU tar, `--format=pax --numeric-owner` |
//! |---|---|---|
//! | used by | buildah, podman, umoci | build scripts |
//! | a path of more than 100 bytes | cut at a `/` into name and prefix if that is possible; else the record `path` | the record `path` |
//! | a link of more than 100 bytes | the record `linkpath` | the same |
//! | a path with other bytes than ASCII | the record `path`; the header has what is ASCII | the record `path`; the header has all bytes |
//! | a link with other bytes than ASCII | the record `linkpath`; the header has what is ASCII | no record |
//! | parts of a second | are rounded off before | the record `mtime` |
//! | attributes | `SCHILY.xattr.NAME` | the same |
//! | order of records | by their names | link, path, time, attributes as the file system lists them: taken to be in order |
//! | name of a header of records | `DIR/PaxHeaders.0/NAME`, without `./` | `DIR/PaxHeaders/NAME` |
//! | its mode and time | 0 | 0644, time of the file |
//! | end | two blocks of zeros | the same, and more of them to a multiple of 20 blocks |
//!
//! Everything else is the same: ustar headers (POSIX.1-1988), with names of owners where these are known, numbers in octal to the
//! width of their fields. What either of them does with numbers that do not fit is not known here.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const OWNER_BYTES: usize = 32;
/// Blocks of GNU's tars come in such numbers.
const RECORD: u64 = 20 * BLOCK as u64;

/// Who wrote a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Go's `archive/tar`.
    Go,
    /// GNU tar.
    Gnu,
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    /// The type's character in the header.
    pub kind: u8,
    pub path: &'a str,
    pub link: &'a str,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    /// Names of the user and the group.
    pub owner: (&'a str, &'a str),
    /// Bytes of data behind it.
    pub size: u64,
    pub mtime: Timestamp,
    /// Major and minor number.
    pub device: (u64, u64),
    pub xattrs: &'a BTreeMap<String, Vec<u8>>,
}

/// A record's name and value.
type Extended<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

impl Writer {
    /// All that are known, the most usual first.
    pub const ALL: [Self; 2] = [Self::Go, Self::Gnu];

    /// Appends an entry's headers; `None` if it is not known what they would be.
    pub(super) fn headers(self, header: &Header<'_>, out: &mut Vec<u8>) -> Option<()> {
        let seconds = u64::try_from(header.mtime.as_second()).ok()?;
        let records = match self {
            Self::Go => go_records(header)?,
            Self::Gnu => gnu_records(header),
        };
        let mut block = Block([0; BLOCK]);
        if records.is_empty() {
            let (prefix, name) = split(header.path).unwrap_or(("", header.path));
            block.text(0, NAME_BYTES, name.as_bytes());
            block.text(345, PREFIX_BYTES, prefix.as_bytes());
            block.text(157, NAME_BYTES, header.link.as_bytes());
        } else {
            self.extended(header.path, seconds, &records, out)?;
            block.text(0, NAME_BYTES, &self.shown(header.path));
            block.text(157, NAME_BYTES, &self.shown(header.link));
        }
        block.numbers(header.mode, [header.uid, header.gid], header.size, seconds)?;
        for (at, name) in [(265, header.owner.0), (297, header.owner.1)] {
            // A longer one, or of other letters, has a record in ways that are not known here.
            if name.len() >= OWNER_BYTES || !name.is_ascii() {
                return None;
            }
            block.text(at, OWNER_BYTES, name.as_bytes());
        }
        block.number(329, 8, header.device.0)?;
        block.number(337, 8, header.device.1)?;
        out.extend(block.sealed(header.kind));
        Some(())
    }

    /// Zeros at the end of a tar that has so many bytes before them: those that are its end, and those behind it.
    pub(super) fn trailer(self, before: u64) -> (usize, usize) {
        let end = 2 * BLOCK;
        let more = match self {
            Self::Go => 0,
            Self::Gnu => (before + end as u64).next_multiple_of(RECORD) - (before + end as u64),
        };
        (end, usize::try_from(more).expect("less than a record"))
    }

    /// What the header has of a string for which there is a record.
    fn shown(self, text: &str) -> Vec<u8> {
        match self {
            Self::Go => {
                let ascii: Vec<u8> = text.bytes().filter(u8::is_ascii).collect();
                // A `/` at the very end of the field would make a folder of it.
                match ascii.get(..NAME_BYTES) {
                    Some(cut) if ascii.len() > NAME_BYTES && cut.ends_with(b"/") => {
                        let kept = cut.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
                        let mut cut = cut.to_vec();
                        cut[kept] = 0;
                        cut
                    }
                    _ => ascii,
                }
            }
            Self::Gnu => text.as_bytes().to_vec(),
        }
    }

    /// Appends the header of records and these.
    fn extended(self, path: &str, seconds: u64, records: &[Extended<'_>], out: &mut Vec<u8>) -> Option<()> {
        let data: Vec<u8> = records.iter().flat_map(|(name, value)| record(name, value)).collect();
        let mut block = Block([0; BLOCK]);
        let (name, mode, time) = match self {
            Self::Go => (go_extended_name(path)?, 0, 0),
            Self::Gnu => (gnu_extended_name(path), 0o644, seconds),
        };
        block.text(0, NAME_BYTES, &name);
        block.numbers(mode, [0; 2], data.len() as u64, time)?;
        out.extend(block.sealed(b'x'));
        out.extend(&data);
        out.resize(out.len() + padding(data.len() as u64), 0);
        Some(())
    }
}

/// Zeros behind so many bytes of data.
pub(super) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (BLOCK - over) % BLOCK
}

fn attributes<'a>(header: &Header<'a>) -> impl Iterator<Item = Extended<'a>> {
    header.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}").into(), value.as_slice().into()))
}

fn go_records<'a>(header: &Header<'a>) -> Option<Vec<Extended<'a>>> {
    // It was asked for a format then, and does more than one thing in another way.
    if header.mtime.subsec_nanosecond() != 0 {
        return None;
    }
    let long = |text: &str| !text.is_ascii() || text.len() > NAME_BYTES;
    let mut records: Vec<_> = attributes(header).collect();
    if long(header.link) {
        records.push(("linkpath".into(), header.link.as_bytes().into()));
    }
    // When there are records anyway, a path that could be cut is one of them.
    if long(header.path) && (split(header.path).is_none() || !records.is_empty()) {
        records.push(("path".into(), header.path.as_bytes().into()));
    }
    records.sort();
    Some(records)
}

fn gnu_records<'a>(header: &Header<'a>) -> Vec<Extended<'a>> {
    let mut records: Vec<Extended<'_>> = Vec::new();
    if header.link.len() > NAME_BYTES {
        records.push(("linkpath".into(), header.link.as_bytes().into()));
    }
    if !header.path.is_ascii() || header.path.len() > NAME_BYTES {
        records.push(("path".into(), header.path.as_bytes().into()));
    }
    let nanoseconds = header.mtime.subsec_nanosecond();
    if nanoseconds != 0 {
        let time = format!("{}.{nanoseconds:09}", header.mtime.as_second());
        records.push(("mtime".into(), time.trim_end_matches('0').as_bytes().to_vec().into()));
    }
    records.extend(attributes(header));
    records
}

/// Where Go cuts a path that is too long for the name's field: as late as the prefix's allows.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_BYTES || !path.is_ascii() {
        return None;
    }
    let end = if path.len() > PREFIX_BYTES + 1 {
        PREFIX_BYTES + 1
    } else {
        path.strip_suffix('/').unwrap_or(path).len()
    };
    let at = path[..end].rfind('/').filter(|at| *at > 0)?;
    let name = &path[at + 1..];
    (!name.is_empty() && name.len() <= NAME_BYTES).then_some((&path[..at], name))
}

fn go_extended_name(path: &str) -> Option<Vec<u8>> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parts = folder.split('/').chain(["PaxHeaders.0", name]);
    let parts: Vec<_> = parts.filter(|part| !matches!(*part, "" | ".")).collect();
    if path.starts_with('/') || parts.contains(&"..") {
        return None;
    }
    let mut name: Vec<u8> = parts.join("/").bytes().filter(u8::is_ascii).collect();
    name.truncate(NAME_BYTES);
    while name.last() == Some(&b'/') {
        name.pop();
    }
    Some(name)
}

fn gnu_extended_name(path: &str) -> Vec<u8> {
    let path = path.trim_end_matches('/');
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    format!("{folder}/PaxHeaders/{name}").into_bytes()
}

/// `LENGTH NAME=VALUE` and the line's end; the length is that of all of it.
fn record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    let mut record = format!("{length} {name}=").into_bytes();
    record.extend(value);
    record.push(b'\n');
    record
}

struct Block([u8; BLOCK]);

impl Block {
    /// As much of a string as its field has room for.
    fn text(&mut self, at: usize, width: usize, text: &[u8]) {
        let count = text.len().min(width);
        self.0[at..at + count].copy_from_slice(&text[..count]);
    }

    /// A number with a zero byte behind it, if it fits.
    fn number(&mut self, at: usize, width: usize, number: u64) -> Option<()> {
        let digits = format!("{number:0count$o}", count = width - 1);
        (digits.len() < width).then(|| self.text(at, width, digits.as_bytes()))
    }

    fn numbers(&mut self, mode: u64, owner: [u64; 2], size: u64, seconds: u64) -> Option<()> {
        self.number(100, 8, mode)?;
        self.number(108, 8, owner[0])?;
        self.number(116, 8, owner[1])?;
        self.number(124, 12, size)?;
        self.number(136, 12, seconds)
    }

    /// With its type, its form and its checksum.
    fn sealed(mut self, kind: u8) -> [u8; BLOCK] {
        self.0[156] = kind;
        self.text(257, 8, b"ustar\x0000");
        // Its own field counts as blanks.
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.number(148, 7, sum).expect("512 bytes come to at most six octal digits");
        self.0[154] = 0;
        self.0
    }
}
