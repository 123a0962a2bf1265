//! The entries of a layer in short: what the tar had of each, without its data.
//!
//! Numbers are unsigned LEB128; those that may be negative are zigzag-encoded first. A string is its length and its
//! bytes. One entry after the other:
//!
//! | field | form |
//! |---|---|
//! | kind | one byte: 0 directory, 1 file, 2 symbolic link, 3 character device, 4 block device, 5 pipe, 6 hard link |
//! | path | number of bytes shared with the path before, then a string: the rest |
//! | mode, uid, gid | numbers; these and the next two are absent for a hard link |
//! | time | seconds less those of the entry before, zigzag; then nanoseconds |
//! | attributes | their number, then for each its name and its value as strings |
//! | file | its length |
//! | symbolic link, hard link | its target as a string |
//! | device | major and minor number |

use std::collections::BTreeMap;

use super::{IndexError, SECTION_BYTES_MAX};
use crate::{
    erofs::BLOCK,
    tree::{Attributes, Kind},
};

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const CHAR_DEVICE: u8 = 3;
const BLOCK_DEVICE: u8 = 4;
const FIFO: u8 = 5;
const HARD_LINK: u8 = 6;
/// Bytes of one string: an extended header, where paths and attributes come from, has no more.
const STRING_BYTES_MAX: u64 = 1 << 20;

/// What a layer's entry does to the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// [`crate::tree::Tree::put`].
    Put(Kind, Attributes),
    /// [`crate::tree::Tree::hard_link`], to this path.
    HardLink(Vec<u8>),
}

/// Collects a layer's entries, as long as there is a section for them: what hides others and what replaces itself makes
/// them as many as anybody likes, and the tree no larger.
#[derive(Clone, Debug, Default)]
pub struct EntriesBuilder {
    bytes: Vec<u8>,
    too_many: bool,
    count: u32,
    path: Vec<u8>,
    mtime: i64,
}

impl EntriesBuilder {
    /// Adds an entry.
    pub fn put(&mut self, path: &[u8], kind: &Kind, attributes: &Attributes) {
        let tag = match kind {
            Kind::Directory(_) => DIRECTORY,
            Kind::File { .. } => FILE,
            Kind::Symlink(_) => SYMLINK,
            Kind::CharDevice(..) => CHAR_DEVICE,
            Kind::BlockDevice(..) => BLOCK_DEVICE,
            Kind::Fifo => FIFO,
        };
        if !self.begin(tag, path) {
            return;
        }
        let Attributes { mode, uid, gid, mtime, mtime_nanoseconds, xattrs } = attributes;
        self.number(u64::from(*mode));
        self.number(u64::from(*uid));
        self.number(u64::from(*gid));
        self.number(zigzag(mtime.wrapping_sub(self.mtime)));
        self.mtime = *mtime;
        self.number(u64::from(*mtime_nanoseconds));
        self.number(xattrs.len() as u64);
        for (name, value) in xattrs {
            self.string(name);
            self.string(value);
        }
        match kind {
            Kind::File { length, .. } => self.number(*length),
            Kind::Symlink(target) => self.string(target),
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                self.number(u64::from(*major));
                self.number(u64::from(*minor));
            }
            Kind::Directory(_) | Kind::Fifo => {}
        }
    }

    /// Adds a hard link.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) {
        if self.begin(HARD_LINK, path) {
            self.string(target);
        }
    }

    /// Their number and their bytes; nothing when these were too many.
    pub(super) fn finish(self) -> Option<(u32, Vec<u8>)> {
        (!self.too_many).then_some((self.count, self.bytes))
    }

    /// Begins an entry if there is room for it.
    fn begin(&mut self, tag: u8, path: &[u8]) -> bool {
        if self.too_many || self.bytes.len() > SECTION_BYTES_MAX {
            *self = Self { too_many: true, ..Self::default() };
            return false;
        }
        self.count += 1;
        self.bytes.push(tag);
        let shared = self.path.iter().zip(path).take_while(|(one, other)| one == other).count();
        self.number(shared as u64);
        self.string(&path[shared..]);
        self.path.truncate(shared);
        self.path.extend_from_slice(&path[shared..]);
        true
    }

    fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            if number == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }
}

/// Gives a layer's entries again, one after the other, until the first that is damaged.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    left: u32,
    path: Vec<u8>,
    mtime: i64,
    block: u32,
    end: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], count: u32, first_block: u32, blocks: u32) -> Self {
        let end = first_block.saturating_add(blocks);
        Self { bytes, left: count, path: Vec::new(), mtime: 0, block: first_block, end }
    }

    /// The next entry's path and what it does; `None` behind the last.
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], Change)>, IndexError> {
        if self.left == 0 {
            let whole = self.bytes.is_empty() && self.block == self.end;
            return whole
                .then_some(None)
                .ok_or(IndexError::Damaged("a layer has less data than its entries"));
        }
        self.left -= 1;
        let tag = self.byte()?;
        let shared = self.size(self.path.len() as u64)?;
        self.path.truncate(shared);
        let rest = self.string()?;
        self.path.extend_from_slice(rest);
        if self.path.len() as u64 > STRING_BYTES_MAX {
            return Err(IndexError::Damaged("a path is too long"));
        }
        if tag == HARD_LINK {
            let target = self.string()?.to_vec();
            return Ok(Some((&self.path, Change::HardLink(target))));
        }
        let attributes = self.attributes()?;
        let kind = self.kind(tag)?;
        Ok(Some((&self.path, Change::Put(kind, attributes))))
    }

    fn attributes(&mut self) -> Result<Attributes, IndexError> {
        let mode = u16::try_from(self.number()?).map_err(|_| IndexError::Damaged("a mode is too large"))?;
        let (uid, gid) = (self.word()?, self.word()?);
        self.mtime = self.mtime.wrapping_add(unzigzag(self.number()?));
        let mtime_nanoseconds = self.word()?;
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.number()? {
            let name = self.string()?.to_vec();
            xattrs.insert(name, self.string()?.to_vec());
        }
        Ok(Attributes { mode, uid, gid, mtime: self.mtime, mtime_nanoseconds, xattrs })
    }

    fn kind(&mut self, tag: u8) -> Result<Kind, IndexError> {
        Ok(match tag {
            DIRECTORY => Kind::Directory(BTreeMap::new()),
            FILE => {
                let length = self.number()?;
                Kind::File { block: self.data(length)?, length }
            }
            SYMLINK => Kind::Symlink(self.string()?.to_vec()),
            CHAR_DEVICE => Kind::CharDevice(self.word()?, self.word()?),
            BLOCK_DEVICE => Kind::BlockDevice(self.word()?, self.word()?),
            FIFO => Kind::Fifo,
            _ => return Err(IndexError::Damaged("an entry is of no kind")),
        })
    }

    /// The first block of the next file's data; 0 for an empty one.
    fn data(&mut self, length: u64) -> Result<u32, IndexError> {
        if length == 0 {
            return Ok(0);
        }
        let block = self.block;
        let blocks = u32::try_from(length.div_ceil(BLOCK as u64)).ok();
        let end = blocks.and_then(|blocks| block.checked_add(blocks)).filter(|end| *end <= self.end);
        self.block = end.ok_or(IndexError::Damaged("a file lies outside of its layer's data"))?;
        Ok(block)
    }

    fn byte(&mut self) -> Result<u8, IndexError> {
        let (first, rest) = self.bytes.split_first().ok_or(IndexError::Damaged("an entry is cut off"))?;
        self.bytes = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, IndexError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(IndexError::Damaged("a number is too large"))
    }

    fn word(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.number()?).map_err(|_| IndexError::Damaged("a number is too large"))
    }

    fn size(&mut self, max: u64) -> Result<usize, IndexError> {
        let size = Some(self.number()?).filter(|size| *size <= max);
        size.and_then(|size| usize::try_from(size).ok()).ok_or(IndexError::Damaged("a length is too large"))
    }

    fn string(&mut self) -> Result<&'a [u8], IndexError> {
        let length = self.size(STRING_BYTES_MAX)?;
        let (string, rest) =
            self.bytes.split_at_checked(length).ok_or(IndexError::Damaged("an entry is cut off"))?;
        self.bytes = rest;
        Ok(string)
    }
}

fn zigzag(number: i64) -> u64 {
    (number.wrapping_shl(1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}
