//! Staging: an image from a registry becomes a complete slot, verified, its kernel and initrd on the boot partition,
//! and not bootable. Until the last step, and after any failure, the slot is neither complete nor bootable.

mod delta;
mod download;
mod error;
mod feed;
mod inflate;
mod meter;
mod pace;
pub(crate) mod priority;
mod sources;
mod trust;
mod write;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use evenkeel_crds::{cloud_config::digest_of, node_plan::StagingCost};
use evenkeel_node_agent_core::slot_record::SlotRecord;
use evenkeel_registry::{Image, Layer, Platform, Registry, RegistryOptions};
use evenkeel_trust::Policy;

pub use error::StageError;
pub use meter::Meter;

use delta::Asking;
use pace::Pace;
use sources::Source;

use crate::{
    disk::Disk,
    slot::{WriteCost, WriteError},
};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct StageRequest {
    /// The disk.
    pub disk: Disk,
    /// The slot to write.
    pub slot: String,
    /// The image's reference.
    pub image: String,
    /// How the registry is spoken to.
    pub registry: RegistryOptions,
    /// Who must have signed the image; absent: nobody.
    pub trust: Option<Policy>,
    /// The cluster's cloud-config, which is kept with the image.
    pub cloud_config: Option<String>,
    /// The plan that wants it; absent when a person does.
    pub plan_id: Option<String>,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The slot's record.
    pub record: SlotRecord,
    /// What it took; nothing when the slot held the image already.
    pub cost: StagingCost,
}

/// Stages an image. Ends only when nothing writes to the slot any more.
pub async fn stage(request: &StageRequest, meter: &Arc<Meter>) -> Result<Staged, StageError> {
    let Some(digest) = digest_of(&request.image) else {
        return fetch(request, meter).await;
    };
    // What is here may be from a time when others were trusted.
    if let Some(subject) = evenkeel_registry::subject(&request.image)? {
        trust::check(request, &subject, meter).await?;
    }
    // Otherwise neither the registry nor its network is needed for what is here already.
    let (request_here, digest) = (request.clone(), digest.to_owned());
    match blocking(move || write::already_there(&request_here, &digest)).await? {
        Some(record) => Ok(Staged { record, cost: meter.cost(WriteCost::default()) }),
        None => fetch(request, meter).await,
    }
}

async fn fetch(request: &StageRequest, meter: &Arc<Meter>) -> Result<Staged, StageError> {
    let registry = Registry::new(request.registry.clone())?;
    let machine = Platform::host();
    let image = tokio::select! {
        image = registry.image(&request.image, &machine) => image?,
        () = meter.stopped() => return Err(StageError::Stopped),
    };
    meter.total.store(image.bytes(), Ordering::Relaxed);
    if !request.image.contains('@') {
        trust::check(request, &image.subject(), meter).await?;
        let (request_here, digest) = (request.clone(), image.digest.clone());
        if let Some(record) = blocking(move || write::already_there(&request_here, &digest)).await? {
            return Ok(Staged { record, cost: meter.cost(WriteCost::default()) });
        }
    }
    let mut spoilt = Spoilt::default();
    loop {
        match fetch_once(&registry, &image, request, &spoilt, meter).await {
            // Each time one more, so that this ends.
            Err(StageError::Write(WriteError::Held { digest })) if spoilt.held.insert(digest.clone()) => {
                tracing::warn!(digest, "a layer that a slot should hold is damaged there; fetching it");
            }
            Err(StageError::Parts { digest, reason }) if spoilt.parts.insert(digest.clone()) => {
                tracing::warn!(digest, reason, "a layer cannot be put together; fetching all of it");
            }
            staged => return staged,
        }
        meter.applied.store(0, Ordering::Relaxed);
    }
}

/// Layers, by their digests, that cannot be had in a way that was tried.
#[derive(Clone, Debug, Default)]
struct Spoilt {
    /// Slots do not hold them as they say.
    held: BTreeSet<String>,
    /// They cannot be put together from parts.
    parts: BTreeSet<String>,
}

async fn fetch_once(
    registry: &Registry,
    image: &Image,
    request: &StageRequest,
    spoilt: &Spoilt,
    meter: &Arc<Meter>,
) -> Result<Staged, StageError> {
    let (request, image_here, held) = (request.clone(), image.clone(), spoilt.held.clone());
    let find = move || Ok((sources::find(&request, &image_here, &held), request, image_here));
    let (mut sources, request, image_here) = blocking(find).await?;
    let wanted = fetched(image, &sources);
    tokio::select! {
        there = registry.has_layers(image, &wanted) => there?,
        () = meter.stopped() => return Err(StageError::Stopped),
    }
    let mut pace = Pace::new(request.registry.pull.max_bytes_per_second);
    let asking = Asking { registry, image, pace: &mut pace, meter };
    delta::prepare_all(asking, &request, &spoilt.parts, &mut sources).await?;
    let (sender, feed) = feed::channel(meter.clone());
    let (sources_here, meter_here) = (sources.clone(), meter.clone());
    let writer = blocking(move || {
        let _yielding = request.registry.pull.background.then(priority::yield_the_disk);
        write::write(&request, &image_here, &sources_here, feed, &meter_here)
    });
    let download = download::download(registry, image, &sources, pace, sender, meter);
    // The writer has the last word: what it does not wait for is not needed.
    tokio::pin!(writer);
    tokio::select! {
        staged = &mut writer => staged,
        () = download => writer.await,
    }
}

/// The layers that no slot has: a slot is not given up for an image of which one is nowhere.
fn fetched<'a>(image: &'a Image, sources: &[Source]) -> Vec<&'a Layer> {
    let all = image.layers.iter().zip(sources);
    all.filter(|(_, source)| matches!(source, Source::Registry)).map(|(layer, _)| layer).collect()
}

/// Runs what waits for disks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
) -> Result<T, StageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StageError::Stopped),
    }
}
