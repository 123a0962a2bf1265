//! One change of the file system, held back until it can be written in an order that a power cut may break anywhere.
//!
//! The library writes directory entries, allocation tables and data as it comes to them. Cut in between, a name could
//! be left with clusters that the tables call free, and the next file would be written over them. So: data goes to
//! clusters that nobody has, and is written before all else; tables and directories are kept, sector by sector, and
//! written at the end. What can be left is clusters that no name has: some room is lost until it is needed
//! ([`Held::reclaim`]), and nothing else.
//!
//! Each flush here has a disk that goes wrong without it, in the tests of power cuts.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
};

use super::{
    cache::Cache,
    parts::{FIRST_CLUSTER, Parts, SECTOR, TABLE_ENTRY, TABLE_ENTRY_BITS},
};
use crate::disk::Window;

/// A directory entry, and the byte that begins one which was removed.
const ENTRY: usize = 32;
const REMOVED: u8 = 0xE5;

/// What a change does, and so in which order it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Tables first: a name appears when all that it names is there.
    Create,
    /// The same for a folder, and no more: its name has to be there when that of a file in it is.
    CreateFolder,
    /// Old names first: a file has one name or none, never two that share its clusters.
    Rename,
    /// Names first: clusters are free when no name has them.
    Remove,
}

/// The change. A reader and writer for the library.
pub(super) struct Held {
    pub(super) disk: Cache,
    pub(super) parts: Parts,
    position: u64,
    /// Sectors by their number, as they are to be.
    pub(super) sectors: BTreeMap<u64, [u8; SECTOR]>,
}

type Sectors = Vec<(u64, [u8; SECTOR])>;

impl Held {
    /// Begins a change. Dropped, nothing of it was.
    pub(super) fn begin(window: &Window) -> io::Result<Self> {
        let mut disk = Cache::new(window.clone());
        let mut boot = [0; SECTOR];
        disk.read_at(0, &mut boot)?;
        let parts = Parts::of(&boot, disk.length())?;
        Ok(Self { disk, parts, position: 0, sectors: BTreeMap::new() })
    }

    /// Writes what was held back.
    pub(super) fn write_out(mut self, change: Change) -> io::Result<()> {
        if change == Change::Remove {
            self.keep_named()?;
        }
        let Self { mut disk, parts, sectors, .. } = self;
        let (mut tables, mut removals, mut names) = (Sectors::new(), Sectors::new(), Sectors::new());
        for (number, new) in sectors {
            let mut old = [0; SECTOR];
            disk.read_at(number * SECTOR as u64, &mut old)?;
            if old == new {
                // The library marks the file system as in use, and takes the mark back.
            } else if number * (SECTOR as u64) < parts.data {
                tables.push((number, new));
            } else if only_removes(&old, &new) {
                removals.push((number, new));
            } else {
                names.push((number, new));
            }
        }
        let (before, behind) = match change {
            Change::Create | Change::Rename => ([tables, removals, names], Sectors::new()),
            Change::CreateFolder => ([tables, removals, Sectors::new()], names),
            Change::Remove => ([removals, names, Sectors::new()], tables),
        };
        for step in before.iter().filter(|step| !step.is_empty()) {
            write(&mut disk, step)?;
            disk.flush()?;
        }
        // Not worth a flush: what is not free yet when the power goes is lost room, and a folder without a name has
        // nothing in it.
        write(&mut disk, &behind)?;
        disk.write_run()
    }

    /// Writes what was held back where its order does not matter.
    pub(super) fn write_all_held(self) -> io::Result<()> {
        let Self { mut disk, sectors, .. } = self;
        write(&mut disk, &sectors.into_iter().collect())?;
        disk.flush()
    }

    /// Fills `buffer` with what the disk will hold.
    pub(super) fn read_view(&mut self, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let from = usize::try_from(at % SECTOR as u64).expect("less than a sector");
            let count = buffer.len().min(SECTOR - from);
            buffer[..count].copy_from_slice(&self.sector(at / SECTOR as u64)?[from..from + count]);
            (at, buffer) = (at + count as u64, &mut buffer[count..]);
        }
        Ok(())
    }

    /// Holds back some bytes of one sector.
    pub(super) fn hold(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (number, from) =
            (at / SECTOR as u64, usize::try_from(at % SECTOR as u64).expect("less than a sector"));
        let mut sector = self.sector(number)?;
        sector[from..from + bytes.len()].copy_from_slice(bytes);
        self.sectors.insert(number, sector);
        Ok(())
    }

    /// Whether the bytes at a place belong to a cluster that is free on the disk, and so to nobody yet.
    fn is_unseen(&mut self, at: u64) -> io::Result<bool> {
        let Some(behind) = at.checked_sub(self.parts.data) else { return Ok(false) };
        let cluster = behind / self.parts.cluster + FIRST_CLUSTER;
        let mut entry = [0; TABLE_ENTRY];
        self.disk.read_at(self.parts.table + cluster * TABLE_ENTRY as u64, &mut entry)?;
        Ok(u32::from_le_bytes(entry) & TABLE_ENTRY_BITS == 0)
    }

    fn sector(&mut self, number: u64) -> io::Result<[u8; SECTOR]> {
        if let Some(sector) = self.sectors.get(&number) {
            return Ok(*sector);
        }
        let mut sector = [0; SECTOR];
        self.disk.read_at(number * SECTOR as u64, &mut sector)?;
        Ok(sector)
    }

    /// The sector at the position, and which of its bytes `wanted` bytes from there on are.
    fn here(&self, wanted: usize) -> (u64, Range<usize>) {
        let from = usize::try_from(self.position % SECTOR as u64).expect("less than a sector");
        (self.position / SECTOR as u64, from..(from + wanted).min(SECTOR))
    }
}

fn write(disk: &mut Cache, sectors: &Sectors) -> io::Result<()> {
    sectors.iter().try_for_each(|(number, sector)| disk.write_at(number * SECTOR as u64, sector))
}

fn only_removes(old: &[u8; SECTOR], new: &[u8; SECTOR]) -> bool {
    let mut changed = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
    changed.all(|(at, (_, new))| at.is_multiple_of(ENTRY) && *new == REMOVED)
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (number, bytes) = self.here(buffer.len());
        if number * (SECTOR as u64) >= self.disk.length() {
            return Ok(0);
        }
        let count = match self.sectors.range(number..).next() {
            Some((held, _)) if *held == number => {
                let count = bytes.len();
                buffer[..count].copy_from_slice(&self.sectors[&number][bytes]);
                count
            }
            held => {
                let end = held.map_or(self.disk.length(), |(held, _)| held * SECTOR as u64);
                let count = usize::try_from(end - self.position).unwrap_or(usize::MAX).min(buffer.len());
                self.disk.read_at(self.position, &mut buffer[..count])?;
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Held {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        let (number, bytes) = self.here(new.len());
        let unseen = self.is_unseen(self.position)?;
        let whole = new.len() / SECTOR * SECTOR;
        let count = if unseen && bytes.start == 0 && whole > 0 {
            let behind = (self.position - self.parts.data) % self.parts.cluster;
            let room = usize::try_from(self.parts.cluster - behind).unwrap_or(usize::MAX);
            let count = whole.min(room);
            self.disk.write_at(self.position, &new[..count])?;
            count
        } else {
            let count = bytes.len();
            let mut sector = self.sector(number)?;
            sector[bytes].copy_from_slice(&new[..count]);
            if unseen {
                self.disk.write_at(number * SECTOR as u64, &sector)?;
            } else {
                self.sectors.insert(number, sector);
            }
            count
        };
        self.position += count as u64;
        Ok(count)
    }

    /// Nothing: the order of everything is decided at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Held {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(delta) => self.disk.length().checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
