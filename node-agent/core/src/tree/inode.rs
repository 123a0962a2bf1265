//! What a tree is made of.

use std::collections::BTreeMap;

/// Index of an inode in its tree.
pub type InodeId = usize;
/// The root directory.
pub const ROOT: InodeId = 0;

/// What every kind of inode has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-user-ID, set-group-ID and sticky: 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds on top.
    pub mtime_nanoseconds: u32,
    /// Extended attributes, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(BTreeMap<Vec<u8>, Entry>),
    /// A file whose bytes lie in the slot from a block on.
    File {
        /// First block; 0 for an empty file.
        block: u32,
        /// Bytes.
        length: u64,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it names.
    pub inode: InodeId,
    /// The layer that brought it last.
    pub(super) layer: u32,
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// What every kind has.
    pub attributes: Attributes,
}

impl Inode {
    /// A directory of which no entry tells.
    pub(super) fn implied() -> Self {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        Self { kind: Kind::Directory(BTreeMap::new()), attributes }
    }
}
