//! What is fetched of a layer before it is decided how it is put together.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use evenkeel_node_agent_core::chunks::{BadTable, plan::Plan, position::Span};
use evenkeel_registry::{Image, Layer, Registry};
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::{Place, prepare::NotWorthIt};
use crate::stage::{Meter, blocking, download::PARTS_AT_ONCE, pace::Pace};

/// What is asked, and how fast.
pub(in crate::stage) struct Asking<'a> {
    pub registry: &'a Registry,
    pub image: &'a Image,
    pub pace: &'a mut Pace,
    pub meter: &'a Arc<Meter>,
}

impl Asking<'_> {
    /// A part of the layer of which no digest is known.
    pub(super) async fn part(&mut self, layer: &Layer, range: Range<u64>) -> Result<Vec<u8>, NotWorthIt> {
        let bytes = self.registry.part(self.image, layer, range).read().await?;
        self.count(bytes.len()).await;
        Ok(bytes)
    }

    /// A part of the layer whose digest is known.
    pub(super) async fn span(
        &mut self,
        layer: &Layer,
        span: Span,
        digest: [u8; 32],
    ) -> Result<Vec<u8>, NotWorthIt> {
        let bytes = self.part(layer, span.offset..span.offset + span.length).await?;
        let bytes = blocking(move || Ok((Sha256::digest(&bytes)[..] == digest).then_some(bytes)));
        let bytes = bytes.await.map_err(|_| BadTable::new("reading it was stopped"))?;
        Ok(bytes.ok_or(BadTable::new("a part of it has another digest than the manifest says"))?)
    }

    /// All that a plan fetches, which the caller knows to be little. The next parts are asked for ahead: each costs a way to
    /// the registry and back before its first byte.
    pub(super) async fn ranges(&mut self, layer: &Layer, plan: &Plan<Place>) -> Result<Vec<u8>, NotWorthIt> {
        let at_once = if self.pace.is_bounded() { 1 } else { PARTS_AT_ONCE };
        let (registry, image) = (self.registry, self.image);
        let ranges = stream::iter(plan.ranges.clone());
        let parts = ranges.map(move |range| registry.part(image, layer, range).read());
        let mut parts = parts.buffered(at_once).boxed();
        let mut all = Vec::new();
        while let Some(bytes) = parts.next().await.transpose()? {
            self.count(bytes.len()).await;
            all.extend(bytes);
        }
        Ok(all)
    }

    async fn count(&mut self, bytes: usize) {
        self.meter.downloaded.fetch_add(bytes as u64, Ordering::Relaxed);
        self.pace.keep(bytes).await;
    }
}
