//! Places in a slot, found by what its file system says.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

const BLOCK: usize = 4096;
/// Fields of the EROFS superblock, from the start of the slot (`fs/erofs/erofs_fs.h`).
const ROOT_NID: u64 = 1024 + 14;
const META_BLKADDR: u64 = 1024 + 40;
/// Bytes of a node number's unit.
const INODE_UNIT: u64 = 32;

/// A slot of a disk file.
pub(super) struct Slot {
    disk: PathBuf,
    offset: u64,
    length: u64,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    offset: u64,
    length: u64,
}

impl Slot {
    /// Asks the agent where it is.
    pub(super) async fn find(agent: &Path, disk: &Path, name: &str) -> Result<Self> {
        let slots = super::base::agent(agent, disk, &["slots", "--output", "json"]).await?;
        let slots: Vec<Listed> = serde_json::from_slice(&slots).context("read what `slots` says")?;
        let found = slots.into_iter().find(|slot| slot.name == name);
        let Listed { offset, length, .. } = found.with_context(|| format!("the disk has no slot {name}"))?;
        Ok(Self { disk: disk.to_owned(), offset, length })
    }

    /// The first byte of a large file's data.
    pub(super) fn file_byte(&self, path: &str) -> Result<u64> {
        let file = File::open(&self.disk).context("open the disk")?;
        let read = |at: u64, buffer: &mut [u8]| file.read_exact_at(buffer, self.offset + at);
        let content = evenkeel_node_agent_core::erofs_read::read_file(&read, path)?;
        let wanted = content.get(..BLOCK).context("the file is too small")?;
        let mut block = vec![0; BLOCK];
        for at in (0..self.length).step_by(BLOCK) {
            read(at, &mut block).context("read the slot")?;
            if block == wanted {
                return Ok(at);
            }
        }
        anyhow::bail!("{path} does not lie in one piece")
    }

    /// The first byte of the root folder's inode: the first metadata that a mount reads after the superblock.
    pub(super) fn root_inode(&self) -> Result<u64> {
        let file = File::open(&self.disk).context("open the disk")?;
        let (mut nid, mut blocks) = ([0; 2], [0; 4]);
        file.read_exact_at(&mut nid, self.offset + ROOT_NID)?;
        file.read_exact_at(&mut blocks, self.offset + META_BLKADDR)?;
        let at = u64::from(u32::from_le_bytes(blocks)) * BLOCK as u64
            + u64::from(u16::from_le_bytes(nid)) * INODE_UNIT;
        ensure!(at >= BLOCK as u64 && at < self.length, "the root folder cannot be at byte {at}");
        Ok(at)
    }

    /// Where a byte of it is on the disk.
    pub(super) fn on_disk(&self, at: u64) -> u64 {
        self.offset + at
    }

    /// Lets it hold nothing.
    pub(super) fn wipe(&self) -> Result<()> {
        let file = File::options().write(true).open(&self.disk).context("open the disk")?;
        let zeroes = vec![0; 1 << 20];
        for at in (0..self.length).step_by(zeroes.len()) {
            file.write_all_at(&zeroes, self.offset + at).context("wipe the slot")?;
        }
        file.sync_data().context("flush the disk")
    }

    /// Inverts a byte; a second time puts it right.
    pub(super) fn flip(&self, at: u64) -> Result<()> {
        let file = File::options().read(true).write(true).open(&self.disk).context("open the disk")?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset + at)?;
        file.write_all_at(&[!byte[0]], self.offset + at)?;
        file.sync_data().context("flush the disk")
    }
}
