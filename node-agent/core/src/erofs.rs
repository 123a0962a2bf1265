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

mod directory;
mod inode;
mod superblock;

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
        "extended attribute {0} has more than 65535 bytes, or a name that EROFS cannot hold: it holds user.*, trusted.*, \
         security.* and POSIX ACLs, 256 KiB of them for one file"
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

/// What is written behind the data, and then before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// From the first block behind the data; whole blocks.
    pub blocks: Vec<u8>,
    /// Block 0, with the superblock. Written last.
    pub first_block: Vec<u8>,
    /// Blocks of the whole file system.
    pub total_blocks: u32,
}

/// Where an inode and the data that is not file data lie.
struct Place {
    id: InodeId,
    /// Bytes from the start of the inode area.
    offset: usize,
    /// First block of data that fills whole blocks.
    block: u32,
    /// Directory data or link target.
    length: usize,
    inline: bool,
    xattrs: Vec<u8>,
}

/// Encodes `tree`, whose file data ends before block `data_end`. `uuid` is the file system's; the same input gives
/// the same bytes.
pub fn encode(tree: &Tree, data_end: u32, uuid: [u8; 16]) -> Result<Metadata, ErofsError> {
    let (order, parents, links) = reach(tree);
    let mut next_block = data_end;
    let mut places = Vec::with_capacity(order.len());
    // Number 0 is no inode to user space: the root begins behind an empty place.
    let mut offset = INODE;
    for id in order {
        let place = place(tree, id, &mut offset, &mut next_block)?;
        places.push(place);
    }
    let meta_block = next_block;
    let mut numbers = vec![0; tree.inodes()];
    for place in &places {
        numbers[place.id] = (place.offset / SLOT) as u64;
    }
    let data_blocks = (next_block - data_end) as usize;
    let meta_blocks = offset.div_ceil(BLOCK);
    let mut blocks = vec![0; (data_blocks + meta_blocks) * BLOCK];
    for place in &places {
        let content = match &tree.inode(place.id).kind {
            Kind::Directory(entries) => {
                directory::encode(tree, entries, numbers[place.id], numbers[parents[place.id]], &numbers)
            }
            Kind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        debug_assert_eq!(content.len(), place.length);
        let (whole, tail) =
            content.split_at(if place.inline { content.len() / BLOCK * BLOCK } else { content.len() });
        let start = (place.block.max(data_end) - data_end) as usize * BLOCK;
        blocks[start..start + whole.len()].copy_from_slice(whole);
        let encoded = inode::encode(tree.inode(place.id), place, links[place.id], numbers[place.id]);
        let at = data_blocks * BLOCK + place.offset;
        blocks[at..at + encoded.len()].copy_from_slice(&encoded);
        let tail_at = at + encoded.len();
        blocks[tail_at..tail_at + tail.len()].copy_from_slice(tail);
    }
    let total = u64::from(meta_block) + meta_blocks as u64;
    let total_blocks = u32::try_from(total).map_err(|_| ErofsError::TooManyBlocks)?;
    let root = u16::try_from(numbers[ROOT]).expect("the root is the first inode");
    let first_block = superblock::encode(root, places.len() as u64, total_blocks, meta_block, uuid);
    Ok(Metadata { blocks, first_block, total_blocks })
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
    let xattrs = inode::encode_xattrs(&inode.attributes)?;
    let head = INODE + xattrs.len();
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
    let place = Place { id, offset: *offset, block, length, inline, xattrs };
    *offset += head + if inline { tail } else { 0 };
    Ok(place)
}
