//! The layers' bytes from the registry, one layer after the other and ahead of the writer.

use std::sync::atomic::Ordering;

use evenkeel_registry::{Image, Layer, Registry, RegistryError};

use super::{
    Meter,
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
    mut pace: Pace,
    sender: Sender,
    meter: &Meter,
) {
    tokio::select! {
        () = send_all(registry, image, sources, &mut pace, &sender, meter) => {}
        () = sender.closed() => {}
        () = meter.stopped() => {}
    }
}

async fn send_all(
    registry: &Registry,
    image: &Image,
    sources: &[Source],
    pace: &mut Pace,
    sender: &Sender,
    meter: &Meter,
) {
    let fetched = image.layers.iter().zip(sources).filter(|(_, source)| matches!(source, Source::Registry));
    for (layer, _) in fetched {
        match send(registry, image, layer, pace, sender, meter).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // Whoever does not listen needs no reason.
                let _ = sender.send(Piece::Failed(error)).await;
                return;
            }
        }
    }
}

/// Sends one layer; `false` when nobody listens.
async fn send(
    registry: &Registry,
    image: &Image,
    layer: &Layer,
    pace: &mut Pace,
    sender: &Sender,
    meter: &Meter,
) -> Result<bool, RegistryError> {
    let mut blob = registry.layer(image, layer);
    let mut piece = Vec::with_capacity(PIECE);
    while let Some(bytes) = blob.next().await? {
        meter.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        pace.keep(bytes.len()).await;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(PIECE - piece.len()));
            piece.extend_from_slice(head);
            rest = tail;
            if piece.len() == PIECE {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE));
                if sender.send(Piece::Bytes(full)).await.is_err() {
                    return Ok(false);
                }
            }
        }
    }
    Ok((piece.is_empty() || sender.send(Piece::Bytes(piece)).await.is_ok())
        && sender.send(Piece::End).await.is_ok())
}
