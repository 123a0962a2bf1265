//! Reads single files of an uncompressed EROFS file system, for those that the disk's set-up takes out of a slot.
//!
//! Format: `fs/erofs/erofs_fs.h` of the Linux kernel. Compressed and chunked files are refused.

use std::io;

const SUPERBLOCK_OFFSET: u64 = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;
const DIRENT_LENGTH: usize = 12;
/// Larger than any boot loader, and than any folder in a system's image.
const FILE_LENGTH_MAX: u64 = 64 << 20;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ErofsReadError {
    /// The disk did not answer.
    #[error("read the slot's file system: check the disk")]
    Io(#[from] io::Error),
    /// The file system makes no sense, or uses what we never write.
    #[error("the slot's file system is not one that this program wrote ({0}): stage the image again")]
    Foreign(&'static str),
    /// The file is not there.
    #[error("the image has no {0}")]
    NotFound(String),
}

/// Fills a buffer with the bytes at an offset from the start of the slot.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'a;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A regular file, with its content.
    File(Vec<u8>),
    /// A regular file of more bytes than were wanted.
    LargeFile(u64),
    /// A symbolic link, with where it leads.
    Link(Vec<u8>),
    /// A device, a FIFO, a socket.
    Special,
}

/// Reads the regular file at the absolute `path`; symbolic links are not followed.
pub fn read_file(read: &ReadAt<'_>, path: &str) -> Result<Vec<u8>, ErofsReadError> {
    let reader = Reader::open(read)?;
    match reader.at(path.as_bytes())? {
        Some(inode) if inode.mode & S_IFMT == S_IFREG => reader.content(&inode),
        _ => Err(ErofsReadError::NotFound(path.to_owned())),
    }
}

/// Reads what lies at a path, with the content of a file up to `length_max` bytes; symbolic links are not followed.
pub fn read_entry(read: &ReadAt<'_>, path: &[u8], length_max: u64) -> Result<Option<Entry>, ErofsReadError> {
    let reader = Reader::open(read)?;
    let Some(inode) = reader.at(path)? else { return Ok(None) };
    Ok(Some(match inode.mode & S_IFMT {
        S_IFDIR => Entry::Folder,
        S_IFREG if inode.size > length_max => Entry::LargeFile(inode.size),
        S_IFREG => Entry::File(reader.content(&inode)?),
        S_IFLNK => Entry::Link(reader.content(&inode)?),
        _ => Entry::Special,
    }))
}

struct Reader<'a> {
    read: &'a ReadAt<'a>,
    block: u64,
    metadata: u64,
    root: u64,
}

struct Inode {
    layout: u16,
    mode: u16,
    size: u64,
    first_block: u64,
    /// Bytes from the start of the slot to what follows the inode and its attributes.
    end: u64,
}

impl<'a> Reader<'a> {
    fn open(read: &'a ReadAt<'a>) -> Result<Self, ErofsReadError> {
        let mut bytes = [0; 128];
        read(SUPERBLOCK_OFFSET, &mut bytes)?;
        if u32_at(&bytes, 0) != MAGIC {
            return Err(ErofsReadError::Foreign("no superblock"));
        }
        if !(9..=16).contains(&bytes[12]) {
            return Err(ErofsReadError::Foreign("an unknown block size"));
        }
        let block = 1 << bytes[12];
        let metadata = u64::from(u32_at(&bytes, 40)) * block;
        Ok(Self { read, block, metadata, root: u64::from(u16_at(&bytes, 14)) })
    }

    fn at(&self, path: &[u8]) -> Result<Option<Inode>, ErofsReadError> {
        let mut inode = self.inode(self.root)?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if inode.mode & S_IFMT != S_IFDIR {
                return Ok(None);
            }
            let Some(nid) = find(&self.content(&inode)?, self.block, name)? else { return Ok(None) };
            inode = self.inode(nid)?;
        }
        Ok(Some(inode))
    }

    fn inode(&self, nid: u64) -> Result<Inode, ErofsReadError> {
        let wrong = ErofsReadError::Foreign("an inode beyond the end");
        let offset = nid.checked_mul(32).and_then(|at| at.checked_add(self.metadata)).ok_or(wrong)?;
        let mut bytes = [0; 32];
        (self.read)(offset, &mut bytes)?;
        let format = u16_at(&bytes, 0);
        let extended = format & 1 == 1;
        let low = u64::from(u32_at(&bytes, 8));
        let size = if extended { low | u64::from(u32_at(&bytes, 12)) << 32 } else { low };
        let attributes = match u64::from(u16_at(&bytes, 2)) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        Ok(Inode {
            layout: format >> 1 & 7,
            mode: u16_at(&bytes, 4),
            size,
            first_block: u64::from(u32_at(&bytes, 16)),
            end: offset + if extended { 64 } else { 32 } + attributes,
        })
    }

    fn content(&self, inode: &Inode) -> Result<Vec<u8>, ErofsReadError> {
        if inode.size > FILE_LENGTH_MAX {
            return Err(ErofsReadError::Foreign("a file of this kind larger than 64 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(inode.size).expect("64 MiB fits every usize")];
        let tail = match inode.layout {
            FLAT_PLAIN => 0,
            FLAT_INLINE => inode.size % self.block,
            _ => return Err(ErofsReadError::Foreign("a compressed or chunked file")),
        };
        let whole = bytes.len() - usize::try_from(tail).expect("less than a block");
        if whole > 0 {
            (self.read)(inode.first_block * self.block, &mut bytes[..whole])?;
        }
        if tail > 0 {
            (self.read)(inode.end, &mut bytes[whole..])?;
        }
        Ok(bytes)
    }
}

fn find(folder: &[u8], block: u64, wanted: &[u8]) -> Result<Option<u64>, ErofsReadError> {
    let wrong = || ErofsReadError::Foreign("a damaged folder");
    for block in folder.chunks(usize::try_from(block).expect("a block is at most 64 KiB")) {
        let names = usize::from(u16_at(block.get(..DIRENT_LENGTH).ok_or_else(wrong)?, 8));
        let entries = block.get(..names).ok_or_else(wrong)?.chunks_exact(DIRENT_LENGTH);
        let starts: Vec<usize> = entries.clone().map(|entry| usize::from(u16_at(entry, 8))).collect();
        for (index, entry) in entries.enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(block.len());
            let name = block.get(starts[index]..end).ok_or_else(wrong)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if name == wanted {
                return Ok(Some(u64::from(u32_at(entry, 0)) | u64::from(u32_at(entry, 4)) << 32));
            }
        }
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
