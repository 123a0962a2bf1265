//! The power goes between any two writes, with any part of what was not flushed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use evenkeel_node_agent_core::{growth, layout::MIB};

use super::*;
use crate::disk::{BlockDevice, Sizes, table::Copies};

const ATOM: usize = 512;

/// A block with what it became; `None` is a flush.
type Op = Option<(u64, [u8; ATOM])>;

/// A disk of which few blocks are written; it remembers what was.
#[derive(Debug, Default)]
struct Memory {
    length: u64,
    blocks: Mutex<BTreeMap<u64, [u8; ATOM]>>,
    log: Mutex<Vec<Op>>,
}

impl BlockDevice for Memory {
    fn read_at(&self, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let blocks = self.blocks.lock().unwrap();
        while !buffer.is_empty() {
            let block = blocks.get(&(at / ATOM as u64)).unwrap_or(&[0; ATOM]);
            let block = &block[usize::try_from(at).unwrap() % ATOM..];
            let (part, rest) = buffer.split_at_mut(block.len().min(buffer.len()));
            part.copy_from_slice(&block[..part.len()]);
            at += part.len() as u64;
            buffer = rest;
        }
        Ok(())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(at.is_multiple_of(ATOM as u64) && bytes.len().is_multiple_of(ATOM));
        for (number, block) in (at / ATOM as u64..).zip(bytes.chunks_exact(ATOM)) {
            self.blocks.lock().unwrap().insert(number, block.try_into().unwrap());
            self.log.lock().unwrap().push(Some((number, block.try_into().unwrap())));
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.log.lock().unwrap().push(None);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }
}

impl Memory {
    /// A disk with the tables of the one in a file, and with another length.
    fn of(file: &Path, length: u64) -> Self {
        let (file, end) = (File::open(file).unwrap(), SMALL - MIB);
        let mut blocks = BTreeMap::new();
        for at in [0, end] {
            let mut bytes = vec![0; usize::try_from(MIB).unwrap()];
            file.read_exact_at(&mut bytes, at).unwrap();
            let atoms = bytes.chunks_exact(ATOM).map(|block| block.try_into().unwrap());
            blocks.extend((at / ATOM as u64..).zip(atoms));
        }
        Self { length, blocks: Mutex::new(blocks), ..Self::default() }
    }

    /// What the power leaves: the first `count` of the log, and of those that were not flushed the ones that `keep` says.
    fn cut(&self, before: &Self, count: usize, keep: impl Fn(usize) -> bool) -> Self {
        let log = self.log.lock().unwrap();
        let flushed = log[..count].iter().rposition(Option::is_none).unwrap_or(0);
        let mut blocks = before.blocks.lock().unwrap().clone();
        for (index, write) in log[..count].iter().enumerate() {
            if let Some((number, block)) = write
                && (index < flushed || keep(index))
            {
                blocks.insert(*number, *block);
            }
        }
        Self { length: self.length, blocks: Mutex::new(blocks), ..Self::default() }
    }
}

fn grow(memory: &Arc<Memory>) -> Result<bool, PlacedError> {
    let disk = Window::whole(memory.clone()).unwrap();
    let placed = Placed::read(&disk, LogicalBlockSize::Lb512)?;
    let Some(new) = growth::table(&placed.table, placed.blocks)? else { return Ok(false) };
    placed.write(&disk, &new)?;
    Ok(true)
}

fn state_length(memory: &Arc<Memory>) -> u64 {
    let disk = Window::whole(memory.clone()).unwrap();
    let entries = Copies::read(&disk, LogicalBlockSize::Lb512).unwrap().entries().unwrap();
    assert_eq!(entries.len(), 7);
    entries.iter().find(|entry| entry.name == "evenkeel-state").unwrap().length
}

/// The same for the same two numbers.
fn chance(index: u64, dice: u64) -> bool {
    (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 + dice).count_ones().is_multiple_of(2)
}

const SMALL: u64 = 1100 << 20;
const LARGE: u64 = 3000 << 20;

#[test]
fn the_table_is_the_old_or_the_new_one_at_every_moment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.img");
    let sizes = Sizes { disk: Some(SMALL), slot: Some(64 << 20), slots: 2 };
    crate::disk::Disk::create(&file, sizes, false).unwrap();
    let lose = |memory: &Memory, at: u64| memory.blocks.lock().unwrap().remove(&at);
    // By the first copy; by the second one alone, which is where this disk ends; and by either of two.
    for (length, lost) in [(LARGE, None), (SMALL + (2 << 20), None), (LARGE, Some(1))] {
        let start = Arc::new(Memory::of(&file, length));
        if let Some(lost) = lost {
            // As after a cut: the second copy was moved, and the first is damaged.
            let disk = Window::whole(start.clone()).unwrap();
            let placed = Placed::read(&disk, LogicalBlockSize::Lb512).unwrap();
            placed.write(&disk, &placed.table).unwrap();
            lose(&start, lost);
        }
        let old = state_length(&start);
        let whole = Arc::new(start.cut(&start, 0, |_| true));
        assert!(grow(&whole).unwrap());
        let new = state_length(&whole);
        assert!((new > old) == (length == LARGE) && !grow(&whole).unwrap());
        let count = whole.log.lock().unwrap().len();
        let mut found = BTreeSet::new();
        for end in 0..=count {
            for dice in 0..8_u64 {
                let keep = |index: usize| match dice {
                    0 => true,
                    1 => false,
                    _ => chance(index as u64, dice),
                };
                let left = Arc::new(whole.cut(&start, end, keep));
                let length = state_length(&left);
                assert!(length == old || length == new, "{end} of {count}, {dice}: {length}");
                found.insert(length);
                grow(&left).unwrap();
                assert_eq!(state_length(&left), new);
            }
        }
        assert_eq!(found, BTreeSet::from([old, new]));
    }
}
