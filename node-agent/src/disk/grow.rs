//! A disk that is larger than its table says: the table is written for it, and the kernel hears of the partition that grew.

use std::path::Path;

use evenkeel_node_agent_core::{growth, layout::Role};

use super::{
    Access, Disk, DiskError, device, is_block_device, kernel_table, table,
    table::{Placed, PlacedError},
};

/// What was done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableGrowth {
    /// It was written, or a copy of it that a power cut has damaged.
    Written,
    /// It has the whole disk already.
    Whole,
    /// The state partition is not the last one, so that the table was left alone.
    NotLast,
}

impl Disk {
    /// Moves the second copy of a disk's table to the disk's end, and lets the state partition reach up to there, if it is
    /// the last one. Safe to repeat, also after a power cut, of which nothing is left then. A disk that was opened before
    /// knows nothing of it.
    pub fn grow_table(path: &Path) -> Result<TableGrowth, DiskError> {
        let size = table::block_size(path)?;
        let disk = table::window(path, Access::Read)?;
        let placed = Placed::read(&disk, size).map_err(|error| error.on("read", path))?;
        let new = growth::table(&placed.table, placed.blocks)
            .map_err(|error| PlacedError::from(error).on("read", path))?;
        let Some(new) = new else {
            if !growth::is_ours(&placed.table) {
                return Ok(TableGrowth::NotLast);
            }
            // A power cut may have left one copy.
            let mended = table::mend(path, size)?;
            return Ok(if mended.was_whole() { TableGrowth::Whole } else { TableGrowth::Written });
        };
        let disk = table::window(path, Access::WriteShared)?;
        placed.write(&disk, &new).map_err(|error| error.on("write", path))?;
        Ok(TableGrowth::Written)
    }

    /// Bytes at the disk's end that [`Self::grow_table`] would use, and whether the second copy of its table is not at its end
    /// for that reason.
    pub fn unused(&self) -> Result<(u64, bool), DiskError> {
        let path = self.path();
        let disk = table::window(path, Access::Read)?;
        let placed = Placed::read(&disk, table::block_size(path)?).map_err(|error| error.on("read", path))?;
        Ok((growth::unused(&placed.table, placed.blocks), placed.is_outgrown()))
    }

    /// Lets the kernel know how long the state partition is, where it takes it for shorter.
    pub fn tell_kernel_of_state(&self) -> Result<(), DiskError> {
        let state = self.partition(Role::State)?;
        if is_block_device(self.path())? && device::partition_length(&state.path)? < state.length {
            kernel_table::resize(self.path(), state)?;
        }
        Ok(())
    }
}
