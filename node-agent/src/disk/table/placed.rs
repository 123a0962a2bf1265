//! A table as its bytes lie on a disk, and the order in which its two copies are written: one of them is whole at every
//! moment.

#[cfg(test)]
mod tests;

use std::{io, path::Path};

use evenkeel_node_agent_core::{
    growth,
    partition_table::{Blocks, FIRST_AT, Header, Table, TableError, protecting},
};
use gpt::disk::LogicalBlockSize;

use crate::disk::{DiskError, Window};

/// Bytes of a boot sector, whatever the disk's blocks are.
const SECTOR: usize = 512;

/// A disk's table, by the first copy that is whole.
pub(in crate::disk) struct Placed {
    /// What it says.
    pub table: Table,
    /// Whether that is the first copy.
    is_first: bool,
    /// The disk's blocks.
    pub blocks: Blocks,
}

impl Placed {
    /// Reads it. The second copy is looked for at the disk's end alone, as firmware and kernel do.
    pub(in crate::disk) fn read(disk: &Window, size: LogicalBlockSize) -> Result<Self, PlacedError> {
        let size = size.as_u64();
        let blocks = Blocks { count: disk.length() / size, size };
        let end = blocks.count.saturating_sub(1);
        let (table, is_first) = match copy(disk, blocks, FIRST_AT) {
            Ok(table) => (table, true),
            Err(error) => (copy(disk, blocks, end).map_err(|_| error)?, false),
        };
        Ok(Self { table, is_first, blocks })
    }

    /// Whether the second copy is not at the disk's end because the disk became larger.
    pub(in crate::disk) fn is_outgrown(&self) -> bool {
        growth::unused(&self.table, self.blocks) > 0 && growth::has_outgrown(&self.table, self.blocks)
    }

    /// Writes a table in the place of this one, both copies, durably. The copy that was read comes last: until it is begun it
    /// is the table as it was, and from then on the other one is the new one.
    pub(in crate::disk) fn write(&self, disk: &Window, table: &Table) -> Result<(), PlacedError> {
        let [first, second] = table.copies(self.blocks)?;
        self.protect(disk)?;
        let order = if self.is_first { [second, first] } else { [first, second] };
        for copy in order {
            disk.write_at(copy.entries_at, &copy.entries)?;
            disk.write_at(copy.header_at, &copy.header)?;
            disk.flush()?;
        }
        Ok(())
    }

    /// Lets the boot sector protect all of the disk. It comes first: while the table is not written this is done again.
    fn protect(&self, disk: &Window) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        disk.read_at(0, &mut sector)?;
        let Some(sector) = protecting(&sector, self.blocks) else { return Ok(()) };
        disk.write_at(0, &sector)?;
        disk.flush()
    }
}

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::disk) enum PlacedError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl PlacedError {
    /// The error of a disk.
    pub(in crate::disk) fn on(self, operation: &'static str, path: &Path) -> DiskError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => DiskError::Io { operation, path, source },
            Self::Table(source) => DiskError::Table { path, source },
        }
    }
}

/// The copy whose header is in block `at`.
fn copy(disk: &Window, blocks: Blocks, at: u64) -> Result<Table, PlacedError> {
    let mut header = [0; SECTOR];
    disk.read_at(at * blocks.size, &mut header)?;
    let header = Header::parse(&header, at)?;
    let mut entries = vec![0; header.entries_length()];
    let place = header.entries_at().checked_mul(blocks.size).ok_or(TableError::Damaged)?;
    disk.read_at(place, &mut entries)?;
    Ok(Table::new(header, entries)?)
}
