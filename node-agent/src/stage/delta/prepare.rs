//! Whether a layer is worth to be put together, found out before it is fetched: its table is, and the slots are searched.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read as _},
    sync::Arc,
};

use evenkeel_node_agent_core::chunks::{
    BadTable, estargz,
    plan::{self, Plan},
    position::Position,
    table::Table,
};
use evenkeel_registry::{Layer, RegistryError};

use super::{Asking, Delta, Form, held, predict};
use crate::{
    disk::Window,
    slot::index::HeldLayer,
    stage::{
        Meter, StageError, StageRequest, blocking, priority,
        sources::{self, Source},
    },
};

/// Bytes of all layers that are fetched and kept in memory to find out whether their tar-splits are needed. Where more is
/// missing a tar-split is a small part of the download.
const TRIED_BYTES_MAX: u64 = 16 << 20;

/// Why a layer is fetched whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWorthIt {
    #[error(transparent)]
    Table(#[from] BadTable),
    #[error("parts of the layer cannot be fetched")]
    Registry(#[from] RegistryError),
    #[error("its parts that no slot of the disk holds cost {cost} bytes, and all of it costs {size}")]
    NoGain { cost: u64, size: u64 },
    #[error("it cannot be put together")]
    Parts(#[source] io::Error),
    #[error("no usual program wrote its tar, or with times in parts of a second")]
    Headers,
    #[error(
        "its headers cannot be told before {0} bytes are fetched, more than are kept to try that out ({TRIED_BYTES_MAX})"
    )]
    Untried(u64),
}

/// Why a layer is not put together.
pub(super) enum Not {
    WorthIt(NotWorthIt),
    /// Nor is it fetched.
    Possible(StageError),
}

impl From<NotWorthIt> for Not {
    fn from(error: NotWorthIt) -> Self {
        Self::WorthIt(error)
    }
}

impl From<StageError> for Not {
    fn from(error: StageError) -> Self {
        Self::Possible(error)
    }
}

/// The complete slots, and what each holds.
pub(super) type Held = Arc<Vec<(Window, Vec<HeldLayer>)>>;

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
    let mut left = TRIED_BYTES_MAX;
    for (layer, source) in candidates {
        if let Some(delta) = prepare(&mut asking, layer, &held, background, &mut left).await? {
            *source = Source::Parts(delta);
        }
    }
    Ok(())
}

/// How to put a layer together from the layers in `held`; `None` if it is better fetched whole. What is fetched to try
/// something out is taken from `left`.
async fn prepare(
    asking: &mut Asking<'_>,
    layer: &Layer,
    held: &Held,
    background: bool,
    left: &mut u64,
) -> Result<Option<Arc<Delta>>, StageError> {
    let estargz = estargz::table_digest(&layer.annotations);
    let position = Position::find(&layer.annotations, layer.size);
    if held.is_empty() {
        return Ok(None);
    }
    // Their states are large, and everything that stages would have them within its own.
    let delta = match (position, estargz) {
        (Ok(None), Ok(None)) => return Ok(None),
        (Ok(Some(position)), _) if !plan::worth_a_look(&position, layer.size) => return Ok(None),
        (Ok(Some(position)), _) => {
            Box::pin(put_together(asking, layer, position, held, background, left)).await
        }
        (Ok(None), Ok(Some(digest))) => {
            Box::pin(super::estargz::put_together(asking, layer, digest, held, background, left)).await
        }
        (Err(error), _) | (_, Err(error)) => return Ok(whole(layer, &error.into())),
    };
    match delta {
        Ok(delta) => {
            let (fetched, size, requests) = (delta.plan.bytes(), layer.size, delta.plan.ranges.len());
            tracing::info!(layer = layer.digest, fetched, size, requests, "fetching only what no slot holds");
            Ok(Some(Arc::new(delta)))
        }
        Err(Not::WorthIt(error)) => Ok(whole(layer, &error)),
        Err(Not::Possible(error)) => Err(error),
    }
}

async fn put_together(
    asking: &mut Asking<'_>,
    layer: &Layer,
    position: Position,
    held: &Held,
    background: bool,
    left: &mut u64,
) -> Result<Delta, Not> {
    let (meter, tar_split) = (asking.meter.clone(), position.tar_split);
    let (table, compressed) = unless_stopped(&meter, table(asking, layer, &position)).await?;
    let (held, meter_here, size, may_try) = (held.clone(), meter.clone(), layer.size, *left);
    let digest = table.tar_split.expect("a table of zstd:chunked is refused without one");
    let search = move || {
        let _yielding = background.then(priority::yield_the_disk);
        let held = held::find(&table, &held, &meter_here);
        let plan = Plan::new(&table, |digest| held.place(digest));
        if meter_here.is_stopped() {
            return Err(StageError::Stopped);
        }
        if !plan.saves(tar_split.length, size) {
            return Ok(Err(NotWorthIt::NoGain { cost: plan.cost(tar_split.length), size }));
        }
        let tries = plan.bytes() <= may_try;
        let predicted = tries.then(|| predict::tar_split(&compressed, &position)).flatten();
        let tar_split = (Vec::new(), tar_split.inflated);
        let delta = Delta { plan, form: Form::ZstdChunked, tar_split, slots: held.slots, fetched: None };
        Ok(Ok((delta, predicted)))
    };
    let (mut delta, predicted) = blocking(search).await??;
    if let Some(predicted) = predicted {
        *left -= delta.plan.bytes();
        delta.fetched = Some(unless_stopped(&meter, asking.ranges(layer, &delta.plan)).await?);
        delta.tar_split.0 = predicted;
        let (diff_id, meter_here) = (layer.diff_id.clone(), meter.clone());
        let try_out = move || {
            let _yielding = background.then(priority::yield_the_disk);
            let right = predict::comes_out(&delta, &diff_id, &meter_here);
            if meter_here.is_stopped() { Err(StageError::Stopped) } else { Ok((delta, right)) }
        };
        let (tried, right) = blocking(try_out).await?;
        if right.map_err(NotWorthIt::Parts)? {
            return Ok(tried);
        }
        tracing::info!(layer = layer.digest, "its tar-split is another than was predicted");
        delta = tried;
    }
    delta.tar_split.0 = unless_stopped(&meter, asking.span(layer, tar_split, digest)).await?;
    Ok(delta)
}

/// The result of a download, if it is not stopped before.
pub(super) async fn unless_stopped<T>(
    meter: &Meter,
    fetch: impl Future<Output = Result<T, NotWorthIt>>,
) -> Result<T, Not> {
    tokio::select! {
        fetched = fetch => Ok(fetched?),
        () = meter.stopped() => Err(Not::Possible(StageError::Stopped)),
    }
}

fn whole(layer: &Layer, reason: &NotWorthIt) -> Option<Arc<Delta>> {
    let cause = std::error::Error::source(reason).map(ToString::to_string).unwrap_or_default();
    tracing::info!(layer = layer.digest, %reason, cause, "fetching the whole layer");
    None
}

/// The layer's table, and the same as it was fetched.
async fn table(
    asking: &mut Asking<'_>,
    layer: &Layer,
    position: &Position,
) -> Result<(Table, Vec<u8>), NotWorthIt> {
    let bytes = asking.span(layer, position.table, position.checksum).await?;
    let (inflated, data_end) = (position.table.inflated, position.data_end());
    let parse = move || {
        let table = inflate(&bytes, inflated).and_then(|json| Table::parse(json, data_end));
        Ok(table.map(|table| (table, bytes)))
    };
    Ok(blocking(parse).await.map_err(|_| BadTable::new("reading it was stopped"))??)
}

/// What is compressed, and never more than it says.
pub(super) fn inflate(compressed: &[u8], inflated: u64) -> Result<impl io::BufRead, BadTable> {
    let decoder = zstd::stream::read::Decoder::with_buffer(compressed)
        .map_err(|_| BadTable::new("there is no memory to inflate it"))?;
    Ok(BufReader::with_capacity(64 << 10, decoder.take(inflated)))
}
