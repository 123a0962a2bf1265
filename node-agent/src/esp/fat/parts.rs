//! Where the parts of the file system lie.
//!
//! Format: Microsoft's FAT specification of 2005 (fatgen103), the FAT32 parts of the boot sector, of the table and of
//! the information sector.

use std::io;

/// The unit that a disk writes as a whole or not at all.
pub(super) const SECTOR: usize = 512;
/// The table's entries have 28 bits; 0 says that a cluster is free. Clusters are numbered from 2 on, and have the entry
/// of their number.
pub(super) const TABLE_ENTRY: usize = 4;
pub(super) const TABLE_ENTRY_BITS: u32 = 0x0FFF_FFFF;
pub(super) const FIRST_CLUSTER: u64 = 2;
/// The entry of a cluster that the disk cannot keep.
pub(super) const BAD_CLUSTER: u32 = 0x0FFF_FFF7;
/// The count of free clusters in the information sector, and the count that says that nobody knows.
const FREE_COUNT_AT: u64 = 488;
pub(super) const UNKNOWN_COUNT: u32 = u32::MAX;

/// The parts, in bytes from the partition's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// The first copy of the table.
    pub(super) table: u64,
    /// Bytes of one copy.
    table_length: u64,
    copies: u64,
    /// The first cluster.
    pub(super) data: u64,
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// The cluster where the root directory begins.
    pub(super) root: u64,
    /// The number behind that of the last cluster.
    pub(super) end: u64,
    /// The count of free clusters.
    pub(super) free_count: u64,
}

impl Parts {
    /// Of a partition of `length` bytes with this boot sector.
    pub(super) fn of(boot: &[u8; SECTOR], length: u64) -> io::Result<Self> {
        let number = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long =
            |at: usize| u64::from(u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]));
        let (sector, reserved) = (number(11), number(14));
        let (per_cluster, copies) = (u64::from(boot[13]), u64::from(boot[16]));
        let is_fat32 = number(17) == 0 && number(22) == 0;
        let (table, table_length, cluster) = (reserved * sector, long(36) * sector, per_cluster * sector);
        let whole = sector > 0 && sector.is_multiple_of(SECTOR as u64);
        if !is_fat32 || !whole || cluster == 0 || table_length == 0 || copies == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the boot partition is not FAT32"));
        }
        let data = table + copies * table_length;
        let end =
            (length.saturating_sub(data) / cluster + FIRST_CLUSTER).min(table_length / TABLE_ENTRY as u64);
        let free_count = number(48) * sector + FREE_COUNT_AT;
        Ok(Self { table, table_length, copies, data, cluster, root: long(44), end, free_count })
    }

    /// Whether there is such a cluster.
    pub(super) fn has(&self, cluster: u64) -> bool {
        (FIRST_CLUSTER..self.end).contains(&cluster)
    }

    /// The first byte of a cluster.
    pub(super) fn place(&self, cluster: u64) -> u64 {
        self.data + (cluster - FIRST_CLUSTER) * self.cluster
    }

    /// A cluster's entry in each copy of the table.
    pub(super) fn entries(&self, cluster: u64) -> impl Iterator<Item = u64> + use<> {
        let (first, length) = (self.table + cluster * TABLE_ENTRY as u64, self.table_length);
        (0..self.copies).map(move |copy| first + copy * length)
    }

    /// The clusters whose entries are in a sector of any copy of the table; none for another sector.
    pub(super) fn clusters_of(&self, sector: u64) -> std::ops::Range<u64> {
        let at = sector * SECTOR as u64;
        if !(self.table..self.data).contains(&at) {
            return 0..0;
        }
        let first = (at - self.table) % self.table_length / TABLE_ENTRY as u64;
        first.max(FIRST_CLUSTER)..(first + (SECTOR / TABLE_ENTRY) as u64).min(self.end)
    }
}
