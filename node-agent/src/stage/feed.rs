//! The way from the download to the writer: bytes in order, with a bound on how many wait.

use std::{
    io::{self, BufRead, Read},
    sync::{Arc, atomic::Ordering},
};

use evenkeel_registry::RegistryError;
use tokio::sync::mpsc;

use super::Meter;

/// Bytes that travel together: few wake-ups, and small against the bound.
pub(super) const PIECE: usize = 256 << 10;
/// Pieces that may wait: 2 MiB, and what waits of each layer that comes.
const QUEUE: usize = 8;

/// What travels.
pub(super) enum Piece {
    /// Bytes of the current layer.
    Bytes(Vec<u8>),
    /// The layer's end: its digest was right.
    End,
    /// There will be no more.
    Failed(RegistryError),
}

/// The download's end.
pub(super) type Sender = mpsc::Sender<Piece>;

/// The writer's end: the bytes of one layer, until [`Feed::next_layer`].
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    meter: Arc<Meter>,
    current: Vec<u8>,
    taken: usize,
    ended: bool,
    /// Whether its bytes are counted as applied.
    counted: bool,
    failure: Option<RegistryError>,
}

pub(super) fn channel(meter: Arc<Meter>) -> (Sender, Feed) {
    let (sender, pieces) = mpsc::channel(QUEUE);
    (sender, Feed { pieces, meter, current: Vec::new(), taken: 0, ended: true, counted: true, failure: None })
}

impl Feed {
    /// Goes on to the next layer. `counted` says whether its bytes count as applied when they are read.
    pub(super) fn next_layer(&mut self, counted: bool) {
        (self.ended, self.counted) = (false, counted);
    }

    /// How far staging is.
    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Why the bytes stopped before the layer's end, if they did: the reader above saw no more than an I/O error.
    pub(super) fn failure(&mut self) -> Option<RegistryError> {
        self.failure.take()
    }

    /// Whether the reason is that somebody asked.
    pub(super) fn is_stopped(&self) -> bool {
        self.meter.is_stopped()
    }

    fn refill(&mut self) -> io::Result<()> {
        if self.meter.is_stopped() {
            return Err(io::Error::other("staging was stopped"));
        }
        self.taken = 0;
        self.current.clear();
        match self.pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => self.current = bytes,
            Some(Piece::End) => self.ended = true,
            Some(Piece::Failed(error)) => {
                self.failure = Some(error);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            None => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        Ok(())
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.current.len() && !self.ended {
            self.refill()?;
        }
        Ok(&self.current[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
        if self.counted {
            self.meter.applied.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}
