//! EROFS metadata for a tree whose file data is in place already: directories, inodes, superblock.
//!
//! Format: the Linux kernel's `fs/erofs/erofs_fs.h`. Uncompressed, 4096-byte blocks, 64-byte inodes. Data comes
//! first, from block 1 on; then directories and long link targets in blocks of their own; then the inodes. A
//! directory's last part and a link's target lie behind their inode where they fit into its block.
//!
//! What EROFS cannot hold, and a tar can: extended attributes other than user.*, trusted.*, security.* and POSIX ACLs,
//! values above 65,535 bytes or more than 256 KiB of them for one file (refused); times of access and of change (they
//! read as the modification time); holes (written as zeros); device numbers above 4095:1048575 (refused). Modification
//! times have 64 bits of seconds and nanoseconds, so that no time is out of reach.

mod blocks;
mod directory;
mod inode;
mod superblock;

use self::blocks::Blocks;
use crate::tree::{Attributes, InodeId, Kind, ROOT, Tree};

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Bytes of an inode without its attributes.
const INODE: usize = 64;
/// An inode's number is its place in units of this many bytes.
const SLOT: usize = 32;

/// Why a tree cannot be an EROFS.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ErofsError {
    /// Too many blocks for a 32-bit block address.
    #[error("the file system would have 2^32 blocks or more")]
    TooManyBlocks,
    /// An attribute's name or value is longer than its length field holds.
    #[error(
        "extended attribute {0} has more than 65535 bytes, or a name that EROFS cannot hold: it holds user.*, \
         trusted.*, security.* and POSIX ACLs, 256 KiB of them for one file"
    )]
    Xattr(String),
    /// Linux keeps 12 bits of major and 20 bits of minor.
    #[error("device number {0}:{1} does not fit: the last of Linux is {MAJOR_MAX}:{MINOR_MAX}")]
    Device(u32, u32),
}

/// The highest device numbers that an inode has room for.
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// Whether an inode can be in an EROFS: said of each entry as it comes, so that whoever asks can name it.
pub fn check(kind: &Kind, attributes: &Attributes) -> Result<(), ErofsError> {
    if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = *kind
        && (major > MAJOR_MAX || minor > MINOR_MAX)
    {
        return Err(ErofsError::Device(major, minor));
    }
    inode::encode_xattrs(attributes).map(|_| ())
}

/// Where everything of a tree's metadata lies, before any of it is made: the inodes and folders of a large image would
/// take as much memory again as the tree.
#[derive(Debug)]
pub struct Layout {
    places: Vec<Place>,
    /// By inode: the number that it has in the file system, each directory's parent, and the link count.
    numbers: Vec<u64>,
    parents: Vec<InodeId>,
    links: Vec<u32>,
    data_end: u32,
    /// First block of the inodes, and the first behind them.
    meta_block: u32,
    end: u32,
}

/// Where an inode and the data that is not file data lie.
#[derive(Debug)]
struct Place {
    id: InodeId,
    /// Bytes from the start of the inode area.
    offset: usize,
    /// First block of data that fills whole blocks.
    block: u32,
    /// Directory data or link target.
    length: usize,
    inline: bool,
}

impl Layout {
    /// Finds a place for everything of `tree`, whose file data ends before block `data_end`.
    pub fn new(tree: &Tree, data_end: u32) -> Result<Self, ErofsError> {
        let (order, parents, links) = reach(tree);
        let mut next_block = data_end;
        let mut places = Vec::with_capacity(order.len());
        // Number 0 is no inode to user space: the root begins behind an empty place.
        let mut offset = INODE;
        let mut numbers = vec![0; tree.inodes()];
        for id in order {
            let place = place(tree, id, &mut offset, &mut next_block)?;
            numbers[id] = (place.offset / SLOT) as u64;
            places.push(place);
        }
        let end = u64::from(next_block) + offset.div_ceil(BLOCK) as u64;
        let end = u32::try_from(end).map_err(|_| ErofsError::TooManyBlocks)?;
        Ok(Self { places, numbers, parents, links, data_end, meta_block: next_block, end })
    }

    /// Blocks of the whole file system.
    pub fn total_blocks(&self) -> u32 {
        self.end
    }

    /// Block 0, with the superblock, to be written last. `uuid` is the file system's.
    pub fn first_block(&self, uuid: [u8; 16]) -> Vec<u8> {
        let root = u16::try_from(self.numbers[ROOT]).expect("the root is the first inode");
        superblock::encode(root, self.places.len() as u64, self.end, self.meta_block, uuid)
    }

    /// Gives the blocks behind the data to `sink`, one after the other: from the first behind the data to the last. The
    /// same tree, which must be that of [`Self::new`], gives the same bytes.
    pub fn encode<E: From<ErofsError>>(
        &self,
        tree: &Tree,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut blocks = Blocks::new(sink);
        for place in self.places.iter().filter(|place| place.block > 0) {
            let content = self.content(tree, place);
            blocks.put((place.block - self.data_end) as usize * BLOCK, &content[..place.whole()])?;
        }
        let area = (self.meta_block - self.data_end) as usize * BLOCK;
        for place in &self.places {
            let inode = tree.inode(place.id);
            let xattrs = inode::encode_xattrs(&inode.attributes)?;
            let number = self.numbers[place.id];
            blocks.put(
                area + place.offset,
                &inode::encode(inode, place, &xattrs, self.links[place.id], number),
            )?;
            if place.inline {
                blocks.put(
                    area + place.offset + INODE + xattrs.len(),
                    &self.content(tree, place)[place.whole()..],
                )?;
            }
        }
        blocks.pad((self.end - self.data_end) as usize * BLOCK)
    }

    /// Directory data or link target.
    fn content(&self, tree: &Tree, place: &Place) -> Vec<u8> {
        let content = match &tree.inode(place.id).kind {
            Kind::Directory(entries) => {
                let parent = self.numbers[self.parents[place.id]];
                directory::encode(tree, entries, self.numbers[place.id], parent, &self.numbers)
            }
            Kind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        debug_assert_eq!(content.len(), place.length);
        content
    }
}

impl Place {
    /// Bytes of the data that are in blocks of their own.
    fn whole(&self) -> usize {
        if self.inline { self.length / BLOCK * BLOCK } else { self.length }
    }
}

/// Inodes in the order of a walk by name; and by inode, each directory's parent, and the link count. Lists and no maps:
/// they are small beside the tree.
fn reach(tree: &Tree) -> (Vec<InodeId>, Vec<InodeId>, Vec<u32>) {
    let mut order = vec![ROOT];
    let mut parents = vec![ROOT; tree.inodes()];
    let mut links = vec![0; tree.inodes()];
    links[ROOT] = 2;
    let mut next = 0;
    while let Some(&directory) = order.get(next) {
        next += 1;
        for entry in tree.entries(directory).values() {
            let is_directory = matches!(tree.inode(entry.inode).kind, Kind::Directory(_));
            if links[entry.inode] == 0 {
                order.push(entry.inode);
            }
            links[entry.inode] += if is_directory { 2 } else { 1 };
            if is_directory {
                parents[entry.inode] = directory;
                links[directory] += 1;
            }
        }
    }
    (order, parents, links)
}

fn place(tree: &Tree, id: InodeId, offset: &mut usize, next_block: &mut u32) -> Result<Place, ErofsError> {
    let inode = tree.inode(id);
    let length = match &inode.kind {
        Kind::Directory(entries) => directory::length(entries),
        Kind::Symlink(target) => target.len(),
        _ => 0,
    };
    let head = INODE + inode::encode_xattrs(&inode.attributes)?.len();
    let tail = length % BLOCK;
    let inline = tail > 0 && head + tail <= BLOCK;
    *offset = offset.next_multiple_of(INODE);
    // What lies behind an inode must not leave the block in which it begins.
    if inline && (*offset + head) % BLOCK + tail > BLOCK {
        *offset = (*offset + head).next_multiple_of(BLOCK) - head;
        *offset = offset.next_multiple_of(INODE);
        if (*offset + head) % BLOCK + tail > BLOCK {
            *offset = offset.next_multiple_of(BLOCK);
        }
    }
    let whole = if inline { length / BLOCK } else { length.div_ceil(BLOCK) };
    let block = if whole > 0 { *next_block } else { 0 };
    let count = u32::try_from(whole).map_err(|_| ErofsError::TooManyBlocks)?;
    *next_block = next_block.checked_add(count).ok_or(ErofsError::TooManyBlocks)?;
    let place = Place { id, offset: *offset, block, length, inline };
    *offset += head + if inline { tail } else { 0 };
    Ok(place)
}
