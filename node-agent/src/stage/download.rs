//! The layers' bytes from the registry, in order and ahead of the writer. While one layer comes, the beginning of the
//! next one does too: a connection that is slow by itself is not all that the link has, and a layer's first byte takes
//! its time.

use std::{ops::Range, sync::atomic::Ordering};

use bytes::Bytes;
use evenkeel_registry::{Image, Layer, Registry, RegistryError};
use futures::{StreamExt as _, stream};
use tokio::sync::{Mutex, mpsc};

use super::{
    Meter,
    delta::Delta,
    feed::{PIECE, Piece, Sender},
    pace::Pace,
    sources::Source,
};

/// Parts of a layer that come at a time, where the rate is not bounded.
pub(super) const PARTS_AT_ONCE: usize = 4;
/// Answers' pieces of a part that wait until the parts before it have passed; one is what a connection gives at once, some 400 KiB
/// at most.
const PART_AHEAD: usize = 2;
/// Layers that come at a time, where the rate is not bounded.
const AT_ONCE: usize = 2;
/// Pieces of a layer that wait until the one before it has passed: 3 MiB.
const AHEAD: usize = 12;

/// Sends every layer that comes from the registry, or why it cannot. Ends at once when nobody listens any more, or when
/// it is asked to stop.
pub(super) async fn download(
    registry: &Registry,
    image: &Image,
    sources: &[Source],
    pace: Pace,
    sender: Sender,
    meter: &Meter,
) {
    let at_once = if pace.is_bounded() { 1 } else { AT_ONCE };
    let pace = Mutex::new(pace);
    let from = Origin { registry, image, pace: &pace, meter };
    let wanted = image.layers.iter().zip(sources);
    let wanted = wanted.filter(|(_, source)| matches!(source, Source::Registry | Source::Parts(_)));
    let (layers, queues): (Vec<_>, Vec<_>) = wanted
        .map(|(layer, source)| {
            let (sender, queue) = mpsc::channel(AHEAD);
            (from.fetch(layer, source, sender), queue)
        })
        .unzip();
    let fetched = stream::iter(layers).buffered(at_once).for_each(|()| std::future::ready(()));
    let closed = sender.clone();
    tokio::select! {
        () = forward(queues, sender) => {}
        // What was fetched is not yet sent.
        () = async { fetched.await; std::future::pending().await } => {}
        () = closed.closed() => {}
        () = meter.stopped() => {}
    }
}

/// Sends one layer after the other, to the first that failed.
async fn forward(queues: Vec<mpsc::Receiver<Piece>>, sender: Sender) {
    for mut queue in queues {
        while let Some(piece) = queue.recv().await {
            let failed = matches!(piece, Piece::Failed(_));
            // Whoever does not listen needs no reason.
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    }
}

/// Nobody listens.
struct Unheard;

/// Why a layer was not sent.
enum Ended {
    Unheard,
    Failed(RegistryError),
}

impl From<Unheard> for Ended {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<RegistryError> for Ended {
    fn from(error: RegistryError) -> Self {
        Self::Failed(error)
    }
}

/// Where all layers come from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    registry: &'a Registry,
    image: &'a Image,
    pace: &'a Mutex<Pace>,
    meter: &'a Meter,
}

impl Origin<'_> {
    /// Sends one layer, or why it cannot be had.
    async fn fetch(self, layer: &Layer, source: &Source, sender: Sender) {
        let mut way = Way { pace: self.pace, sender, meter: self.meter, piece: Vec::new() };
        let sent = match source {
            Source::Parts(delta) => self.parts(layer, delta, &mut way).await,
            _ => self.whole(layer, &mut way).await,
        };
        if let Err(Ended::Failed(error)) = sent {
            let _ = way.sender.send(Piece::Failed(error)).await;
        }
    }

    async fn whole(self, layer: &Layer, way: &mut Way<'_>) -> Result<(), Ended> {
        let mut blob = self.registry.layer(self.image, layer);
        while let Some(bytes) = blob.next().await? {
            way.send(&bytes).await?;
        }
        Ok(way.end().await?)
    }

    /// The parts in order, the next ones asked for ahead: each costs a way to the registry and back before its first byte.
    async fn parts(self, layer: &Layer, delta: &Delta, way: &mut Way<'_>) -> Result<(), Ended> {
        let at_once = if way.pace.lock().await.is_bounded() { 1 } else { PARTS_AT_ONCE };
        let (order, mut parts) = mpsc::unbounded_channel();
        let asked = stream::iter(delta.ranges().to_vec()).map(move |range| {
            let (sender, part) = mpsc::channel(PART_AHEAD);
            // Nobody listens only once nothing more is wanted.
            let _ = order.send(part);
            self.part(layer, range, sender)
        });
        let fetched = asked.buffered(at_once).for_each(|()| std::future::ready(()));
        let sent = async {
            while let Some(mut part) = parts.recv().await {
                while let Some(bytes) = part.recv().await {
                    way.send(&bytes?).await?;
                }
            }
            Ok(way.end().await?)
        };
        tokio::select! {
            sent = sent => sent,
            // What was fetched is not yet sent.
            () = async { fetched.await; std::future::pending().await } => unreachable!("it never ends"),
        }
    }

    /// The bytes of one part, or why they cannot be had.
    async fn part(
        self,
        layer: &Layer,
        range: Range<u64>,
        sender: mpsc::Sender<Result<Bytes, RegistryError>>,
    ) {
        let mut part = self.registry.part(self.image, layer, range);
        while let Some(bytes) = part.next().await.transpose() {
            let failed = bytes.is_err();
            if sender.send(bytes).await.is_err() || failed {
                return;
            }
        }
    }
}

/// The way to whoever listens, at a bounded rate, in large pieces.
struct Way<'a> {
    pace: &'a Mutex<Pace>,
    sender: Sender,
    meter: &'a Meter,
    piece: Vec<u8>,
}

impl Way<'_> {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Unheard> {
        self.meter.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.pace.lock().await.keep(bytes.len()).await;
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.piece.capacity() == 0 {
                self.piece.reserve_exact(PIECE);
            }
            let (head, tail) = rest.split_at(rest.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(head);
            rest = tail;
            if self.piece.len() == PIECE {
                self.piece().await?;
            }
        }
        Ok(())
    }

    /// The layer's end.
    async fn end(&mut self) -> Result<(), Unheard> {
        if !self.piece.is_empty() {
            self.piece().await?;
        }
        self.sender.send(Piece::End).await.map_err(|_| Unheard)
    }

    async fn piece(&mut self) -> Result<(), Unheard> {
        let piece = std::mem::take(&mut self.piece);
        self.sender.send(Piece::Bytes(piece)).await.map_err(|_| Unheard)
    }
}
