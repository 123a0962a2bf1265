//! The thread that writes. Blocks that the slot holds already at their place are not written again.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender},
    },
};

use evenkeel_node_agent_core::erofs::BLOCK;

use super::{Check, Counters, WRITE};
use crate::{
    disk::{SlotRegion, Window, aligned::AlignedBuffer},
    slot::WriteError,
};

/// After so many writes in a row of which the slot held nothing it is looked at only now and then: reading what is old
/// and other costs as much as it could save.
const MISSES_MAX: u32 = 8;
/// How often it is looked at then: one write of these, 1/16 of the time that all would take.
const THEN_EVERY: u32 = 16;
/// Bytes after which the end of a layer is flushed, so that a power cut costs no finished layer that was expensive, and
/// many small layers do not wait for the disk.
const FLUSH: u64 = 32 << 20;

/// What is to be written.
pub(super) enum Put {
    Blocks {
        at: u64,
        buffer: AlignedBuffer,
        sums: Vec<u64>,
        there: bool,
    },
    /// A layer's section, and the list that names it, with its place in the slot record's room.
    Section {
        at: u64,
        bytes: Vec<u8>,
        list: (u64, Vec<u8>),
    },
}

pub(super) struct Putter {
    slot: Window,
    name: String,
    record_at: u64,
    counters: Arc<Counters>,
    old: Option<AlignedBuffer>,
    misses: u32,
    unflushed: u64,
}

impl Putter {
    pub(super) fn new(slot: &Window, region: &SlotRegion, compare: bool, counters: &Arc<Counters>) -> Self {
        Self {
            slot: slot.clone(),
            name: region.name.clone(),
            record_at: region.record_at(),
            counters: counters.clone(),
            old: compare.then(|| AlignedBuffer::new(WRITE)),
            misses: 0,
            unflushed: 0,
        }
    }

    /// Writes until there is no more work.
    pub(super) fn work(
        &mut self,
        queue: &Receiver<Put>,
        check: &Sender<Check>,
        give_back: &Sender<AlignedBuffer>,
    ) -> Result<(), WriteError> {
        while let Ok(put) = queue.recv() {
            match put {
                Put::Blocks { at, buffer, sums, there } => {
                    let written = if there { self.skip(buffer.len()) } else { self.put(at, &buffer)? };
                    // Nobody wants it back when the writer is gone.
                    let _ = give_back.send(buffer);
                    for range in written {
                        let at = at + (range.start * BLOCK) as u64;
                        if check.send(Check { at, sums: sums[range].to_vec() }).is_err() {
                            return Ok(());
                        }
                    }
                }
                Put::Section { at, bytes, list: (list_at, list) } => {
                    self.section([(at, &bytes), (self.record_at + list_at, &list)])?;
                }
            }
        }
        Ok(())
    }

    /// Writes what the slot does not hold; gives these blocks.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<Vec<Range<usize>>, WriteError> {
        let ranges = self.differing(at, bytes);
        let mut written = 0;
        for range in &ranges {
            let (from, to) = (range.start * BLOCK, range.end * BLOCK);
            self.slot
                .write_at(at + from as u64, &bytes[from..to])
                .map_err(|error| self.failed("write", error))?;
            written += to - from;
        }
        self.unflushed += written as u64;
        self.counters.written.fetch_add(written as u64, Ordering::Relaxed);
        self.skip(bytes.len() - written);
        Ok(ranges)
    }

    /// The blocks that the slot does not hold at their place, as far as it is worth a look.
    fn differing(&mut self, at: u64, bytes: &[u8]) -> Vec<Range<usize>> {
        let all = 0..bytes.len() / BLOCK;
        let look = self.misses < MISSES_MAX || self.misses.is_multiple_of(THEN_EVERY);
        let Some(old) = self.old.as_mut().filter(|_| look) else {
            self.misses = self.misses.saturating_add(1);
            return vec![all];
        };
        old.set_length(bytes.len());
        if self.slot.read_at(at, old).is_err() {
            // Writing mends what a drive cannot read, or says that it cannot.
            return vec![all];
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut hit = false;
        for (block, (old, new)) in old.chunks(BLOCK).zip(bytes.chunks(BLOCK)).enumerate() {
            match ranges.last_mut() {
                _ if old == new => hit = true,
                Some(range) if range.end == block => range.end += 1,
                _ => ranges.push(block..block + 1),
            }
        }
        self.misses = if hit { 0 } else { self.misses.saturating_add(1) };
        ranges
    }

    fn skip(&self, count: usize) -> Vec<Range<usize>> {
        self.counters.skipped.fetch_add(count as u64, Ordering::Relaxed);
        Vec::new()
    }

    /// A section may reach the disk before its data, and its list before both: who uses them compares each with its hash.
    fn section(&mut self, parts: [(u64, &[u8]); 2]) -> Result<(), WriteError> {
        for (at, bytes) in parts {
            let failed = |error| self.failed("write the content index of", error);
            self.slot.write_at(at, bytes).map_err(failed)?;
            self.counters.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.unflushed += bytes.len() as u64;
        }
        if self.unflushed >= FLUSH {
            self.slot.flush().map_err(|error| self.failed("flush", error))?;
            self.unflushed = 0;
        }
        Ok(())
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> WriteError {
        WriteError::Disk { operation, slot: self.name.clone(), source }
    }
}
