//! A GUID partition table as bytes (UEFI specification 2.10, 5.3): what is not meant to change in it stays as it is, whoever
//! wrote it, and it is placed on a disk of any length.

#[cfg(test)]
pub(crate) mod tests;

/// Bytes of a header that is used; the rest of its block is zero.
pub const HEADER_BYTES: usize = 92;
/// The block of the first copy's header.
pub const FIRST_AT: u64 = 1;
/// Every program makes entries of this length, and 128 of them.
const ENTRY_BYTES: usize = 128;
const ENTRIES_MAX: u32 = 1024;
/// Where the entries of the first copy are unless its header says otherwise.
const FIRST_ENTRIES_AT: u64 = 2;
const SIGNATURE: &[u8] = b"EFI PART";
/// Places in a header.
const LENGTH: usize = 12;
const CHECKSUM: usize = 16;
const THIS: usize = 24;
const OTHER: usize = 32;
const LAST_USABLE: usize = 48;
const ENTRIES_AT: usize = 72;
const ENTRIES: usize = 80;
const BYTES_OF_ENTRY: usize = 84;
const ENTRIES_CHECKSUM: usize = 88;
/// Places in an entry, behind the GUID of its type, which is zero where there is no partition.
const TYPE_BYTES: usize = 16;
const FIRST_BLOCK: usize = 32;
const LAST_BLOCK: usize = 40;
const NAME: usize = 56;

/// A disk's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// How many it has.
    pub count: u64,
    /// Bytes of each.
    pub size: u64,
}

/// Why a copy of a table cannot be used, or not be placed on a disk.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// Nothing, or something else.
    #[error("there is no partition table")]
    NoHeader,
    /// A checksum does not match, or the header is another block's.
    #[error("the partition table is damaged")]
    Damaged,
    /// It is not as every program makes it.
    #[error(
        "the partition table has {0} entries of {1} bytes, and up to {ENTRIES_MAX} of {ENTRY_BYTES} are read"
    )]
    Form(u32, u32),
    /// A partition has no place on the disk.
    #[error(
        "the partition table has partitions up to block {needed}, and the disk has room up to block {last}: the disk is \
         smaller than the one that it was made for"
    )]
    Beyond {
        /// The last block of the last partition.
        needed: u64,
        /// The last block that a partition may have.
        last: u64,
    },
}

/// A header that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header([u8; HEADER_BYTES]);

/// A table that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    header: Header,
    entries: Vec<u8>,
}

/// One partition, in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Place of its entry, from 0 on.
    pub index: usize,
    /// Its first block.
    pub first: u64,
    /// Its last block.
    pub last: u64,
    /// Its name.
    pub name: String,
}

/// A copy of a table as it is written; places are bytes from the disk's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where the header is.
    pub header_at: u64,
    /// The header's block.
    pub header: Vec<u8>,
    /// Where the entries are.
    pub entries_at: u64,
    /// Their blocks.
    pub entries: Vec<u8>,
}

impl Header {
    /// Reads the header in a block; `at` is the block's number.
    pub fn parse(block: &[u8], at: u64) -> Result<Self, TableError> {
        let bytes = block.first_chunk::<HEADER_BYTES>().ok_or(TableError::NoHeader)?;
        if !bytes.starts_with(SIGNATURE) {
            return Err(TableError::NoHeader);
        }
        let header = Self(*bytes);
        // Nobody has made a longer one yet.
        if header.word(LENGTH) as usize != HEADER_BYTES || header.word(CHECKSUM) != header.checksum() {
            return Err(TableError::Damaged);
        }
        if header.long(THIS) != at {
            return Err(TableError::Damaged);
        }
        let (entries, bytes) = (header.word(ENTRIES), header.word(BYTES_OF_ENTRY));
        if bytes as usize != ENTRY_BYTES || entries > ENTRIES_MAX {
            return Err(TableError::Form(entries, bytes));
        }
        Ok(header)
    }

    /// The block where its entries begin.
    pub fn entries_at(&self) -> u64 {
        self.long(ENTRIES_AT)
    }

    /// Bytes of its entries.
    pub fn entries_length(&self) -> usize {
        self.word(ENTRIES) as usize * ENTRY_BYTES
    }

    fn checksum(&self) -> u32 {
        let mut bytes = self.0;
        bytes[CHECKSUM..CHECKSUM + 4].fill(0);
        crc32fast::hash(&bytes)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn long(&self, at: usize) -> u64 {
        long(&self.0, at)
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Table {
    /// A header with its entries.
    pub fn new(header: Header, entries: Vec<u8>) -> Result<Self, TableError> {
        let right = entries.len() == header.entries_length()
            && crc32fast::hash(&entries) == header.word(ENTRIES_CHECKSUM);
        if right { Ok(Self { header, entries }) } else { Err(TableError::Damaged) }
    }

    /// Its partitions, in the order of their entries.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        let entries = self.entries.chunks_exact(ENTRY_BYTES).enumerate();
        entries.filter(|(_, entry)| entry[..TYPE_BYTES].iter().any(|byte| *byte != 0)).map(
            |(index, entry)| {
                let units = entry[NAME..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
                let name = String::from_utf16_lossy(&name);
                Partition { index, first: long(entry, FIRST_BLOCK), last: long(entry, LAST_BLOCK), name }
            },
        )
    }

    /// The block that it takes for the disk's last one: there its second copy is.
    pub fn end(&self) -> u64 {
        self.header.long(THIS).max(self.header.long(OTHER))
    }

    /// Gives the partition at `index` another last block.
    pub fn set_last(&mut self, index: usize, last: u64) {
        let at = index * ENTRY_BYTES + LAST_BLOCK;
        self.entries[at..at + 8].copy_from_slice(&last.to_le_bytes());
    }

    /// The last block that a partition may have on a disk: behind it are entries and header of the second copy.
    pub fn last_usable(&self, disk: Blocks) -> u64 {
        disk.count.saturating_sub(2 + self.entries_blocks(disk))
    }

    /// The first and the second copy for a disk.
    pub fn copies(&self, disk: Blocks) -> Result<[Copy; 2], TableError> {
        let (end, last) = (disk.count.saturating_sub(1), self.last_usable(disk));
        let needed = self.partitions().map(|partition| partition.last).max().unwrap_or_default();
        let is_first = self.header.long(THIS) == FIRST_AT;
        let entries_at = if is_first { self.header.entries_at() } else { FIRST_ENTRIES_AT };
        // Nothing of the second copy may lie where the first is.
        if needed > last || entries_at.saturating_add(self.entries_blocks(disk)) > last {
            return Err(TableError::Beyond { needed, last });
        }
        let first = self.copy(disk, (FIRST_AT, end), entries_at, last);
        Ok([first, self.copy(disk, (end, FIRST_AT), last + 1, last)])
    }

    fn copy(&self, disk: Blocks, (this, other): (u64, u64), entries_at: u64, last: u64) -> Copy {
        let mut header = self.header.clone();
        for (at, value) in [(THIS, this), (OTHER, other), (LAST_USABLE, last), (ENTRIES_AT, entries_at)] {
            header.set(at, &value.to_le_bytes());
        }
        header.set(ENTRIES_CHECKSUM, &crc32fast::hash(&self.entries).to_le_bytes());
        let checksum = header.checksum();
        header.set(CHECKSUM, &checksum.to_le_bytes());
        let blocks = |bytes: &[u8], count: u64| {
            let mut bytes = bytes.to_vec();
            bytes.resize(usize::try_from(count * disk.size).unwrap_or(bytes.len()), 0);
            bytes
        };
        Copy {
            header_at: this * disk.size,
            header: blocks(&header.0, 1),
            entries_at: entries_at * disk.size,
            entries: blocks(&self.entries, self.entries_blocks(disk)),
        }
    }

    fn entries_blocks(&self, disk: Blocks) -> u64 {
        (self.entries.len() as u64).div_ceil(disk.size)
    }
}

/// A number of eight bytes, which the caller knows to be there.
fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Where the four records of a boot sector are (UEFI specification 2.10, 5.2.3), the bytes of one, and what in it.
const RECORDS: usize = 446;
const RECORD: usize = 16;
const KIND: usize = 4;
const PROTECTIVE: u8 = 0xEE;
const FIRST_SECTOR: usize = 8;
const SECTORS: usize = 12;

/// The boot sector that protects all of a disk; `None` where it does so already, or protects none.
pub fn protecting(sector: &[u8; 512], disk: Blocks) -> Option<[u8; 512]> {
    let wanted = u32::try_from(disk.count.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut new = *sector;
    let word = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    let mut records = (0..4).map(|record| RECORDS + record * RECORD);
    let at = records.find(|at| sector[at + KIND] == PROTECTIVE && word(at + FIRST_SECTOR) == 1)?;
    new[at + SECTORS..at + SECTORS + 4].copy_from_slice(&wanted.to_le_bytes());
    (word(at + SECTORS) < wanted).then_some(new)
}
