//! The way of whole blocks to the disk, each step a thread with its own queue: hash, write, read back.
//!
//! Buffers go round: there is a fixed number of them, which bounds the memory and stops the writer when the disk is slow.

mod checker;
mod hasher;
mod putter;

use std::{
    io,
    sync::{
        Arc,
        atomic::AtomicU64,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use evenkeel_node_agent_core::content_index::Draft;

pub(super) use checker::{Check, check, sums};
pub(super) use hasher::{Hashes, list};

use super::error::WriteError;
use crate::disk::{SlotRegion, Window, aligned::AlignedBuffer};

/// Bytes of one write: a multiple of every erase block that a card or a drive is likely to have, and small in memory.
pub(super) const WRITE: usize = 1 << 20;
/// Buffers of [`WRITE`] bytes: one that is filled, and two for each thread, so that none waits for another's last step.
const BUFFERS: usize = 7;

/// What was done so far, in bytes.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// That the device was given.
    pub written: AtomicU64,
    /// That the slot held already at their place.
    pub skipped: AtomicU64,
    /// That came from another slot.
    pub copied: AtomicU64,
}

/// What travels.
pub(super) enum Work {
    /// Whole blocks for a place of the slot. Those that are `there` are known to be in it already.
    Blocks { at: u64, buffer: AlignedBuffer, there: bool },
    /// The layer ends here.
    LayerEnd(LayerEnd),
}

/// The end of a layer.
pub(super) struct LayerEnd {
    /// The layer's digest, for errors.
    pub digest: String,
    /// What its data must be, where that is known.
    pub expected: Option<[u8; 32]>,
    /// Its section, and the section's place; or the SHA-256 of the one that is there, in hex.
    pub section: Result<(Draft, u64), String>,
}

/// The threads. Dropped, they end after what was handed over.
pub(super) struct Lane {
    work: Option<Sender<Work>>,
    spare: Receiver<AlignedBuffer>,
    made: usize,
    hasher: Option<JoinHandle<Result<Hashes, WriteError>>>,
    putter: Option<JoinHandle<Result<(), WriteError>>>,
    checker: Option<JoinHandle<Result<Vec<Check>, WriteError>>>,
}

/// What the threads leave behind.
pub(super) struct Done {
    /// The hashes of everything.
    pub hashes: Hashes,
    /// What is still to be read back, after a flush.
    pub unchecked: Vec<Check>,
}

impl Lane {
    /// Starts the threads for a slot. `compare` says that what the slot holds may be worth a look; blocks before
    /// `blocks` are the caller's to hash.
    pub(super) fn start(slot: &Window, region: &SlotRegion, compare: bool, counters: &Arc<Counters>) -> Self {
        let (work, to_hash) = channel();
        let (with_hashes, to_put) = channel();
        let (put, to_check) = channel();
        let (give_back, spare) = channel();
        let room = slot.length();
        let hasher = thread::spawn(move || hasher::work(room, &to_hash, &with_hashes));
        let mut putter = putter::Putter::new(slot, region, compare, counters);
        let putter = thread::spawn(move || putter.work(&to_put, &put, &give_back));
        let (slot, name) = (slot.clone(), region.name.clone());
        let checker = thread::spawn(move || checker::work(&slot, &name, &to_check));
        let (hasher, putter, checker) = (Some(hasher), Some(putter), Some(checker));
        Self { work: Some(work), spare, made: 0, hasher, putter, checker }
    }

    /// An empty buffer; waits until there is one. `None` when a thread has failed.
    pub(super) fn buffer(&mut self) -> Option<AlignedBuffer> {
        if let Ok(mut buffer) = self.spare.try_recv() {
            buffer.set_length(0);
            return Some(buffer);
        }
        if self.made < BUFFERS {
            self.made += 1;
            return Some(AlignedBuffer::new(WRITE));
        }
        let mut buffer = self.spare.recv().ok()?;
        buffer.set_length(0);
        Some(buffer)
    }

    /// Hands work over. `false` when a thread has failed.
    pub(super) fn send(&self, work: Work) -> bool {
        self.work.as_ref().is_some_and(|sender| sender.send(work).is_ok())
    }

    /// Waits for the last write, or tells what failed.
    pub(super) fn end(mut self) -> Result<Done, WriteError> {
        let (hashes, put, unchecked) = self.join();
        put?;
        Ok(Done { hashes: hashes?, unchecked: unchecked? })
    }

    #[expect(clippy::type_complexity, reason = "one result for each thread")]
    fn join(
        &mut self,
    ) -> (Result<Hashes, WriteError>, Result<(), WriteError>, Result<Vec<Check>, WriteError>) {
        self.work = None;
        (join(self.hasher.take()), join(self.putter.take()), join(self.checker.take()))
    }
}

fn join<T: Default>(thread: Option<JoinHandle<Result<T, WriteError>>>) -> Result<T, WriteError> {
    let panicked = |_| Err(WriteError::Source(io::Error::other("a thread that writes the slot panicked")));
    thread.map_or_else(|| Ok(T::default()), |thread| thread.join().unwrap_or_else(panicked))
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Whoever begins the slot anew must not be overtaken by an old write.
        let _ = self.join();
    }
}
