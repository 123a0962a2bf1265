//! Whether a layer is worth to be put together, found out before it is fetched: its table is, and the slots are searched.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read as _},
    sync::{Arc, atomic::Ordering},
};

use evenkeel_node_agent_core::chunks::{
    BadTable,
    plan::{self, Plan},
    position::{Position, Span},
    table::Table,
};
use evenkeel_registry::{Image, Layer, Registry, RegistryError};
use sha2::{Digest as _, Sha256};

use super::{Delta, held};
use crate::{
    disk::Window,
    slot::index::HeldLayer,
    stage::{
        Meter, StageError, StageRequest, blocking,
        pace::Pace,
        priority,
        sources::{self, Source},
    },
};

/// Why a layer is fetched whole.
#[derive(Debug, thiserror::Error)]
enum NotWorthIt {
    #[error(transparent)]
    Table(#[from] BadTable),
    #[error("the layer's chunk table cannot be fetched")]
    Registry(#[from] RegistryError),
    #[error("its parts that no slot of the disk holds cost {cost} bytes, and all of it costs {size}")]
    NoGain { cost: u64, size: u64 },
}

/// What is asked, and how fast.
pub(in crate::stage) struct Asking<'a> {
    pub registry: &'a Registry,
    pub image: &'a Image,
    pub pace: &'a mut Pace,
    pub meter: &'a Arc<Meter>,
}

/// Finds out for each layer that would come from the registry whether only parts of it have to. Those in `never` are
/// fetched whole.
pub(in crate::stage) async fn prepare_all(
    mut asking: Asking<'_>,
    request: &StageRequest,
    never: &BTreeSet<String>,
    sources: &mut [Source],
) -> Result<(), StageError> {
    let candidate = |(layer, source): &(&Layer, &mut Source)| {
        let remote = matches!(source, Source::Registry);
        remote && !layer.annotations.is_empty() && !never.contains(&layer.digest)
    };
    let mut candidates = asking.image.layers.iter().zip(sources).filter(candidate).peekable();
    if candidates.peek().is_none() {
        return Ok(());
    }
    let (request, background) = (request.clone(), request.registry.pull.background);
    let held = Arc::new(blocking(move || Ok(sources::others(&request))).await?);
    for (layer, source) in candidates {
        if let Some(delta) = prepare(&mut asking, layer, &held, background).await? {
            *source = Source::Parts(delta);
        }
    }
    Ok(())
}

/// How to put a layer together from the layers in `held`; `None` if it is better fetched whole.
async fn prepare(
    asking: &mut Asking<'_>,
    layer: &Layer,
    held: &Arc<Vec<(Window, Vec<HeldLayer>)>>,
    background: bool,
) -> Result<Option<Arc<Delta>>, StageError> {
    let position = match Position::find(&layer.annotations, layer.size) {
        Ok(Some(position)) => position,
        Ok(None) => return Ok(None),
        Err(error) => return Ok(whole(layer, &error.into())),
    };
    if held.is_empty() || !plan::worth_a_look(&position, layer.size) {
        return Ok(None);
    }
    let meter = asking.meter.clone();
    let fetched = tokio::select! {
        fetched = fetch(asking, layer, &position) => fetched,
        () = meter.stopped() => return Err(StageError::Stopped),
    };
    let (table, tar_split) = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return Ok(whole(layer, &error)),
    };
    let (held, size) = (held.clone(), layer.size);
    let inflated = position.tar_split.inflated;
    let search = move || {
        let _yielding = background.then(priority::yield_the_disk);
        let held = held::find(&table, &held, &meter);
        let plan = Plan::new(&table, |digest| held.place(digest));
        if meter.is_stopped() {
            return Err(StageError::Stopped);
        }
        let cost = plan.cost();
        let worth_it = plan.saves(size);
        let delta = Delta { plan, tar_split: (tar_split, inflated), slots: held.slots };
        Ok(if worth_it { Ok(delta) } else { Err(NotWorthIt::NoGain { cost, size }) })
    };
    match blocking(search).await? {
        Ok(delta) => {
            let (cost, size, requests) = (delta.plan.cost(), layer.size, delta.plan.ranges.len());
            tracing::info!(layer = layer.digest, cost, size, requests, "fetching only what no slot holds");
            Ok(Some(Arc::new(delta)))
        }
        Err(error) => Ok(whole(layer, &error)),
    }
}

fn whole(layer: &Layer, reason: &NotWorthIt) -> Option<Arc<Delta>> {
    let cause = std::error::Error::source(reason).map(ToString::to_string).unwrap_or_default();
    tracing::info!(layer = layer.digest, %reason, cause, "fetching the whole layer");
    None
}

async fn fetch(
    asking: &mut Asking<'_>,
    layer: &Layer,
    position: &Position,
) -> Result<(Table, Vec<u8>), NotWorthIt> {
    let bytes = fetch_span(asking, layer, position.table, position.checksum).await?;
    let (inflated, data_end) = (position.table.inflated, position.data_end());
    let parse = move || Ok(inflate(&bytes, inflated).and_then(|json| Table::parse(json, data_end)));
    let table = blocking(parse).await.map_err(|_| BadTable::new("reading it was stopped"))??;
    let tar_split = fetch_span(asking, layer, position.tar_split, table.tar_split).await?;
    Ok((table, tar_split))
}

/// A part of the layer whose digest is known.
async fn fetch_span(
    asking: &mut Asking<'_>,
    layer: &Layer,
    span: Span,
    digest: [u8; 32],
) -> Result<Vec<u8>, NotWorthIt> {
    let part = asking.registry.part(asking.image, layer, span.offset..span.offset + span.length);
    let bytes = part.read().await?;
    asking.meter.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    asking.pace.keep(bytes.len()).await;
    let bytes = blocking(move || Ok((Sha256::digest(&bytes)[..] == digest).then_some(bytes)));
    let bytes = bytes.await.map_err(|_| BadTable::new("reading it was stopped"))?;
    Ok(bytes.ok_or(BadTable::new("a part of it has another digest than the manifest says"))?)
}

/// What is compressed, and never more than it says.
pub(super) fn inflate(compressed: &[u8], inflated: u64) -> Result<impl io::BufRead, BadTable> {
    let decoder = zstd::stream::read::Decoder::with_buffer(compressed)
        .map_err(|_| BadTable::new("there is no memory to inflate it"))?;
    Ok(BufReader::with_capacity(64 << 10, decoder.take(inflated)))
}
