//! GRUB's code for machines with BIOS, in a disk's first sector and in a partition of its own.

use std::io;

use evenkeel_node_agent_core::{
    bios_boot::{self, BiosBoot, BiosBootError, BiosState, SECTOR},
    layout::{BIOS_BLOCK, Role},
};

use super::{Access, Disk, DiskError, Partition, Window, open};

/// Why there is no place for the code on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBiosPlace {
    /// The disk was made before there was one.
    Partition,
    /// No BIOS boots a disk with such blocks.
    Blocks,
}

/// Why the code could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BiosError {
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The partition is smaller than the code.
    #[error("write GRUB for BIOS")]
    Code(#[from] BiosBootError),
}

impl Disk {
    /// The partition for the code.
    pub fn bios_partition(&self) -> Result<Result<&Partition, NoBiosPlace>, DiskError> {
        if self.block_size()? != BIOS_BLOCK {
            return Ok(Err(NoBiosPlace::Blocks));
        }
        Ok(self.partition(Role::Bios).map_err(|_| NoBiosPlace::Partition))
    }

    /// Writes the code, durably. What loads `core.img` comes last, and where it is there already `core.img` is not touched
    /// unless it is another one: until it is whole again, no BIOS boots the disk.
    pub fn write_bios_code(&self, partition: &Partition, grub: &BiosBoot) -> Result<(), BiosError> {
        let (at, sectors) = sectors(partition);
        let core = grub.core(at, sectors)?;
        let failed = |operation| move |source| self.bios_error(operation, source);
        let place = partition.open(Access::Write).map_err(failed("open"))?;
        let mut found = vec![0; core.len()];
        place.read_at(0, &mut found).map_err(failed("read"))?;
        if found != core {
            place.write_at(0, &core).and_then(|()| place.flush()).map_err(failed("write"))?;
        }
        let disk = self.whole(partition, Access::WriteShared).map_err(failed("open"))?;
        let mut sector = [0; SECTOR];
        disk.read_at(0, &mut sector).map_err(failed("read"))?;
        let new = grub.boot_sector(&sector, at);
        if new != sector {
            disk.write_at(0, &new).and_then(|()| disk.flush()).map_err(failed("write"))?;
        }
        Ok(())
    }

    /// What of the code is on the disk.
    pub fn bios_state(&self) -> Result<BiosState, DiskError> {
        let Ok(partition) = self.bios_partition()? else { return Ok(BiosState::Absent) };
        let failed = |source| self.bios_error("read", source);
        let (mut sector, mut first) = ([0; SECTOR], [0; SECTOR]);
        let disk = self.whole(partition, Access::Read).map_err(failed)?;
        disk.read_at(0, &mut sector).map_err(failed)?;
        let place = partition.open(Access::Read).map_err(failed)?;
        place.read_at(0, &mut first).map_err(failed)?;
        Ok(bios_boot::state(&sector, &first, sectors(partition).0))
    }

    /// Makes a new disk forget the code of the one that was there.
    pub(super) fn forget_bios_code(&self) -> Result<(), DiskError> {
        let Ok(partition) = self.bios_partition()? else { return Ok(()) };
        let wiped = partition.open(Access::Write).and_then(|place| {
            place.write_at(0, &[0; SECTOR])?;
            place.flush()
        });
        wiped.map_err(|source| self.bios_error("write", source))
    }

    fn whole(&self, partition: &Partition, access: Access) -> io::Result<Window> {
        Window::whole(open(&self.path, partition.device.as_ref(), access)?)
    }

    fn bios_error(&self, operation: &'static str, source: io::Error) -> DiskError {
        DiskError::Io { operation, path: self.path.clone(), source }
    }
}

/// The partition's first sector on the disk, and how many it has.
fn sectors(partition: &Partition) -> (u64, u64) {
    (partition.disk_offset / SECTOR as u64, partition.length / SECTOR as u64)
}
