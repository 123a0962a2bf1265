//! The layers' bytes from the registry, one layer after the other and ahead of the writer.

use std::sync::atomic::Ordering;

use evenkeel_registry::{Image, Layer, Registry, RegistryError};

use super::{
    Meter,
    delta::Delta,
    feed::{PIECE, Piece, Sender},
    pace::Pace,
    sources::Source,
};

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
    let closed = sender.clone();
    let way = Way { pace, sender, meter, piece: Vec::new() };
    tokio::select! {
        () = send_all(registry, image, sources, way) => {}
        () = closed.closed() => {}
        () = meter.stopped() => {}
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

async fn send_all(registry: &Registry, image: &Image, sources: &[Source], mut way: Way<'_>) {
    for (layer, source) in image.layers.iter().zip(sources) {
        let sent = match source {
            Source::Registry => send(registry, image, layer, &mut way).await,
            Source::Parts(delta) => send_parts(registry, image, layer, delta, &mut way).await,
            Source::Kept(_) | Source::Copied(..) => continue,
        };
        match sent {
            Ok(()) => {}
            Err(Ended::Unheard) => return,
            Err(Ended::Failed(error)) => {
                // Whoever does not listen needs no reason.
                let _ = way.sender.send(Piece::Failed(error)).await;
                return;
            }
        }
    }
}

async fn send(registry: &Registry, image: &Image, layer: &Layer, way: &mut Way<'_>) -> Result<(), Ended> {
    let mut blob = registry.layer(image, layer);
    while let Some(bytes) = blob.next().await? {
        way.send(&bytes).await?;
    }
    Ok(way.end().await?)
}

async fn send_parts(
    registry: &Registry,
    image: &Image,
    layer: &Layer,
    delta: &Delta,
    way: &mut Way<'_>,
) -> Result<(), Ended> {
    for range in delta.ranges() {
        let mut part = registry.part(image, layer, range.clone());
        while let Some(bytes) = part.next().await? {
            way.send(&bytes).await?;
        }
    }
    Ok(way.end().await?)
}

/// The way to whoever listens, at a bounded rate, in large pieces.
struct Way<'a> {
    pace: Pace,
    sender: Sender,
    meter: &'a Meter,
    piece: Vec<u8>,
}

impl Way<'_> {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Unheard> {
        self.meter.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.pace.keep(bytes.len()).await;
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
