//! The thread that hashes blocks and writes them, so that the disk and the next layer's data do not wait for each other.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{self, JoinHandle},
};

use evenkeel_node_agent_core::erofs::BLOCK;

use super::verity::{DIGEST, leaf};
use crate::disk::Window;

/// Parts that may wait for the disk: with 1 MiB each, a bound on memory.
const QUEUE: usize = 4;

type Leaves = Vec<[u8; DIGEST]>;

/// The thread. Dropped, it ends after what was handed over.
pub(super) struct DiskThread {
    parts: Option<SyncSender<(u64, Vec<u8>)>>,
    used: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<Leaves>>>,
}

impl DiskThread {
    /// Starts it.
    pub(super) fn start(slot: Window) -> Self {
        let (parts, queue) = sync_channel(QUEUE);
        let (give_back, used) = channel();
        let thread = thread::spawn(move || work(&slot, &queue, &give_back));
        Self { parts: Some(parts), used, thread: Some(thread) }
    }

    /// Hands over whole blocks. `false` when the thread has failed.
    pub(super) fn write(&self, at: u64, part: Vec<u8>) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.send((at, part)).is_ok())
    }

    /// An empty buffer, used before if there is one.
    pub(super) fn spare(&self, capacity: usize) -> Vec<u8> {
        self.used.try_recv().map_or_else(
            |_| Vec::with_capacity(capacity),
            |mut buffer| {
                buffer.clear();
                buffer
            },
        )
    }

    /// Waits for the last write, and gives the hash of each block.
    pub(super) fn end(mut self) -> io::Result<Leaves> {
        self.join().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn join(&mut self) -> Option<io::Result<Leaves>> {
        self.parts = None;
        let ended = self.thread.take()?.join();
        Some(ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes has panicked"))))
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        // Whoever begins the slot anew must not be overtaken by an old write.
        let _ = self.join();
    }
}

fn work(slot: &Window, queue: &Receiver<(u64, Vec<u8>)>, give_back: &Sender<Vec<u8>>) -> io::Result<Leaves> {
    let mut leaves = Vec::new();
    while let Ok((at, part)) = queue.recv() {
        slot.write_at(at, &part)?;
        leaves.extend(part.chunks(BLOCK).map(leaf));
        // Nobody wants it back when the writer is gone.
        let _ = give_back.send(part);
    }
    Ok(leaves)
}
