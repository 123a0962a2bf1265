//! The way from the downloaded bytes to tar streams: inflate, then hash, each a thread, so that both go on while entries
//! are put into the slot, and the next layer begins before the last one is finished. A layer of which only parts were
//! downloaded is put together here instead of being inflated.
//!
//! Buffers go round: there is a fixed number of them, which bounds the memory.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use evenkeel_node_agent_core::digest::hex;
use evenkeel_registry::RegistryError;
use sha2::{Digest as _, Sha256};

use super::{
    delta::{Delta, assemble},
    feed::Feed,
};
use crate::slot::Inflater;

/// Bytes that travel together: they stay in a core's cache from the inflater to the hash.
const PIECE: usize = 256 << 10;
/// 4 MiB: the beginning of the next layer is there when the last one is finished.
const PIECES: usize = 16;

/// Why a layer's stream ended before its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The bytes did not come, or are not those that were asked for.
    Registry(RegistryError),
    /// The bytes are right, and cannot be inflated.
    Stream(io::Error),
    /// The layer cannot be put together from its parts.
    Parts(io::Error),
    /// It was asked to stop.
    Stopped,
}

enum Part {
    Bytes(Vec<u8>),
    /// The layer's end, with its diff ID behind the hasher.
    End(String),
    Broken(Broken),
}

/// What `feed` has of a layer.
pub(super) enum Coming {
    /// All of it.
    Whole,
    /// The parts that this names.
    Parts(Arc<Delta>),
}

/// The tar streams of the layers that come out of `feed`, one after the other.
pub(super) fn start(feed: Feed, layers: Vec<Coming>) -> TarStream {
    let (inflated, to_hash) = channel();
    let (hashed, parts) = channel();
    let (give_back, spare) = channel();
    let unwanted = Arc::new(AtomicBool::new(false));
    let next = Next { parts: inflated, spare, made: 0, unwanted: unwanted.clone() };
    thread::spawn(move || inflate_all(feed, &layers, next));
    thread::spawn(move || hash(&to_hash, &hashed));
    TarStream { parts, give_back, unwanted, current: Vec::new(), taken: 0, state: State::Open }
}

/// Where the inflated bytes go, and the buffers come back.
struct Next {
    parts: Sender<Part>,
    spare: Receiver<Vec<u8>>,
    made: usize,
    unwanted: Arc<AtomicBool>,
}

impl Next {
    /// A buffer; waits until there is one. `None` when nobody listens.
    fn buffer(&mut self) -> Option<Vec<u8>> {
        if let Ok(buffer) = self.spare.try_recv() {
            return Some(buffer);
        }
        if self.made < PIECES {
            self.made += 1;
            return Some(Vec::with_capacity(PIECE));
        }
        self.spare.recv().ok()
    }
}

fn inflate_all(mut feed: Feed, layers: &[Coming], mut next: Next) {
    for layer in layers {
        feed.next_layer(matches!(layer, Coming::Whole));
        let sent = match layer {
            Coming::Whole => inflate(&mut feed, &mut next).map_err(|error| why(&mut feed, error)),
            Coming::Parts(delta) => put_together(delta, &mut feed, &mut next),
        };
        let part = match sent {
            Ok(true) => Part::End(String::new()),
            Ok(false) => return,
            Err(broken) => Part::Broken(broken),
        };
        let broken = matches!(part, Part::Broken(_));
        if next.parts.send(part).is_err() || broken {
            return;
        }
    }
}

/// Sends one layer; `false` when nobody listens.
fn inflate(feed: &mut Feed, next: &mut Next) -> io::Result<bool> {
    let mut inflater = Inflater::new(feed)?;
    loop {
        let Some(mut buffer) = next.buffer() else { return Ok(false) };
        if next.unwanted.load(Ordering::Relaxed) {
            return Err(io::Error::other("the rest of the layer is not wanted"));
        }
        buffer.resize(PIECE, 0);
        let count = fill(&mut inflater, &mut buffer)?;
        if count == 0 {
            // One more may be made for the one that is dropped here.
            next.made -= 1;
            return inflater.finish().map(|()| true);
        }
        buffer.truncate(count);
        if next.parts.send(Part::Bytes(buffer)).is_err() {
            return Ok(false);
        }
    }
}

/// The same for a layer that is put together.
fn put_together(delta: &Delta, feed: &mut Feed, next: &mut Next) -> Result<bool, Broken> {
    let mut pieces = Pieces { next, piece: Vec::new(), unheard: false };
    let put = assemble::assemble(delta, feed, &mut pieces).and_then(|()| pieces.flush());
    match (put, feed.failure()) {
        (Ok(()), _) => Ok(true),
        (Err(_), _) if pieces.unheard => Ok(false),
        (Err(error), Some(failure)) if failure.is_no_parts() => Err(Broken::Parts(error)),
        (Err(_), Some(failure)) => Err(Broken::Registry(failure)),
        (Err(_), None) if feed.is_stopped() => Err(Broken::Stopped),
        (Err(error), None) => Err(Broken::Parts(error)),
    }
}

/// Sends what is written, in large pieces.
struct Pieces<'a> {
    next: &'a mut Next,
    piece: Vec<u8>,
    /// Whether nobody listens.
    unheard: bool,
}

impl Pieces<'_> {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        let unwanted = self.next.unwanted.load(Ordering::Relaxed);
        if unwanted || self.next.parts.send(Part::Bytes(piece)).is_err() {
            self.unheard = !unwanted;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            let Some(mut buffer) = self.next.buffer() else {
                self.unheard = true;
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            buffer.clear();
            self.piece = buffer;
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// What broke the bytes on their way says more than where that was noticed.
fn why(feed: &mut Feed, error: io::Error) -> Broken {
    // The rest tells whether these are the bytes that the digest names; an error of it is in the feed.
    let _ = io::copy(feed, &mut io::sink());
    match feed.failure() {
        Some(failure) => Broken::Registry(failure),
        None if feed.is_stopped() => Broken::Stopped,
        None => Broken::Stream(error),
    }
}

fn hash(queue: &Receiver<Part>, next: &Sender<Part>) {
    let mut hash = Sha256::new();
    while let Ok(mut part) = queue.recv() {
        match &mut part {
            Part::Bytes(bytes) => hash.update(bytes),
            Part::End(diff_id) => *diff_id = format!("sha256:{}", hex(&hash.finalize_reset())),
            Part::Broken(_) => {}
        }
        if next.send(part).is_err() {
            return;
        }
    }
}

#[derive(Debug)]
enum State {
    Open,
    /// The layer's end was seen; its diff ID.
    Ended(String),
    Broken(Broken),
}

/// The tar stream of the current layer.
pub(super) struct TarStream {
    parts: Receiver<Part>,
    give_back: Sender<Vec<u8>>,
    unwanted: Arc<AtomicBool>,
    current: Vec<u8>,
    taken: usize,
    state: State,
}

impl TarStream {
    /// Reads to the layer's end, gives its diff ID, and goes on to the next layer.
    pub(super) fn next_layer(&mut self) -> Result<String, Broken> {
        while matches!(self.state, State::Open) {
            self.refill();
        }
        self.taken = self.current.len();
        match std::mem::replace(&mut self.state, State::Open) {
            State::Broken(broken) => Err(broken),
            State::Ended(diff_id) => Ok(diff_id),
            State::Open => unreachable!("the loop above ends with another state"),
        }
    }

    /// Why the current layer cannot be used, if that is because of its bytes. What is left of it is not inflated: it may
    /// be without end.
    pub(super) fn give_up(mut self) -> Option<Broken> {
        self.unwanted.store(true, Ordering::Relaxed);
        self.next_layer().err()
    }

    fn refill(&mut self) {
        self.taken = 0;
        let used = std::mem::take(&mut self.current);
        if !used.is_empty() {
            // Nobody wants it back when the inflater is done.
            let _ = self.give_back.send(used);
        }
        match self.parts.recv() {
            Ok(Part::Bytes(bytes)) => self.current = bytes,
            Ok(Part::End(diff_id)) => self.state = State::Ended(diff_id),
            Ok(Part::Broken(broken)) => self.state = State::Broken(broken),
            Err(_) => self.state = State::Broken(Broken::Stopped),
        }
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.current.len() {
            match &self.state {
                State::Open => self.refill(),
                State::Ended(_) => return Ok(0),
                State::Broken(Broken::Stream(error)) => {
                    return Err(io::Error::new(error.kind(), error.to_string()));
                }
                State::Broken(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buffer.len().min(self.current.len() - self.taken);
        buffer[..count].copy_from_slice(&self.current[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
