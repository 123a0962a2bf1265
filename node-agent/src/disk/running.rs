//! The disk that this machine runs from.

use std::{fs, path::Path};

use evenkeel_node_agent_core::boot_entry::PART_UUID;

use super::{Disk, DiskError, device};

/// Finds it by the slot's partition GUID on the kernel command line, which the boot entry gave.
pub fn find(proc: &Path) -> Result<Disk, DiskError> {
    let path = proc.join("cmdline");
    let line = fs::read_to_string(&path).map_err(|source| DiskError::NoProc { path, source })?;
    let uuid = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(PART_UUID))
        .ok_or(DiskError::NotRunning("this machine does not run from an Evenkeel slot"))?;
    for candidate in device::disks()? {
        let Ok(disk) = Disk::open(&candidate) else { continue };
        if disk.partitions().iter().any(|partition| partition.part_uuid.eq_ignore_ascii_case(uuid)) {
            return Ok(disk);
        }
    }
    Err(DiskError::NotRunning("no disk of this machine has the partition that it was booted from"))
}
