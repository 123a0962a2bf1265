//! What is lost on the disk of a machine that is off.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::layout::{MIB, Role};

use crate::trial::base::{self, DISK_BYTES};

const SECTOR: u64 = 512;
/// A header and its entries (UEFI specification 2.10, 5.3): sectors 1 to 33, and the last 33.
const TABLE: u64 = 33 * SECTOR;

/// What is overwritten with zeroes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// The first copy of the partition table.
    PrimaryTable,
    /// The second one.
    BackupTable,
    /// The first mebibyte of the disk: the boot sector too.
    FirstMebibyte,
    /// All of a partition.
    Partition(Role),
    /// The first blocks of a partition.
    Begin(Role),
}

/// Overwrites it.
pub(super) fn lose(disk: &Path, loss: Loss) -> Result<()> {
    let (offset, length) = match loss {
        Loss::PrimaryTable => (SECTOR, TABLE),
        Loss::BackupTable => (DISK_BYTES - TABLE, TABLE),
        Loss::FirstMebibyte => (0, MIB),
        Loss::Partition(role) => base::place(role).map(|place| (place.offset, place.length))?,
        Loss::Begin(role) => (base::place(role)?.offset, 64 << 10),
    };
    let file = File::options().write(true).open(disk).context("open the disk")?;
    let zeroes = vec![0; 1 << 20];
    let mut at = offset;
    while at < offset + length {
        let part = (offset + length - at).min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..usize::try_from(part)?], at).context("overwrite the disk")?;
        at += part;
    }
    file.sync_data().context("flush the disk")
}
