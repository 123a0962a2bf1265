//! The blocking half: from the layers' bytes to the sealed slot.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use evenkeel_node_agent_core::{
    boot_files::{self, BootFilesError, Found},
    digest::hex,
    erofs::BLOCK,
    kernel_options::{self, IMAGE_OPTIONS_MAX},
    slot_record::{BootFile, LayerRecord, SlotRecord},
    tree::Tree,
};
use evenkeel_registry::{Image, Layer};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    Meter, StageError, StageRequest, Staged,
    delta::assemble,
    feed::Feed,
    inflate::{self, Broken, Coming, TarStream},
    sources::Source,
};
use crate::{
    boot,
    disk::{RegionError, SlotRegion},
    pins,
    printable::printable,
    slot::{self, LayerError, SlotWriter, WriteError, reuse, scrub},
};

const READ: u64 = 1 << 20;
/// An os-release file has some hundred bytes.
const OS_RELEASE_MAX: u64 = 64 << 10;
/// Characters of a version that are kept: those of OCI's tags, for which many are used.
const VERSION_MAX: usize = 128;
/// Characters of a digest that stand for a version where an image has none.
const DIGEST_AS_VERSION: usize = "sha256:".len() + 12;

/// The record of a slot that holds the image already, with every byte of it read again; its files are on the boot
/// partition then, and it is not bootable.
pub(super) fn already_there(request: &StageRequest, digest: &str) -> Result<Option<SlotRecord>, StageError> {
    let region = request.disk.slot(&request.slot)?;
    let record = match region.read_record() {
        Ok(record) if record.digest == digest => record,
        Ok(_) | Err(RegionError::Record { .. } | RegionError::Unreadable { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let unreadable = |source| StageError::Read { slot: region.name.clone(), source };
    // The hash tree too: without it nothing of the slot can be read when it runs.
    if let Some(damage) = scrub::first_damage(&region, &record).map_err(unreadable)? {
        tracing::warn!(%damage, digest, "writing the slot again");
        return Ok(None);
    }
    // The slot that runs keeps its boot entry, whoever asks.
    region.check_writable()?;
    let other = (record.cloud_config != request.cloud_config).then(|| reconfigured(request, &record));
    let other = other.transpose()?;
    let bootloader = boot::open(&request.disk)?;
    bootloader.clear(&region.name)?;
    if let Some(other) = &other {
        // In between the slot is not complete.
        region.wipe_record()?;
        region.write_record(other)?;
        read_again(&region, other)?;
    }
    let record = other.unwrap_or(record);
    bootloader.place_files(&region, &record)?;
    Ok(Some(record))
}

/// The record of the image that is there with another cloud-config, if that may be and fits.
fn reconfigured(request: &StageRequest, record: &SlotRecord) -> Result<SlotRecord, StageError> {
    if pins::read(&request.disk)?.contains(&request.slot) {
        return Err(StageError::Pinned(request.slot.clone()));
    }
    let (cloud_config, plan_id) = (request.cloud_config.clone(), request.plan_id.clone());
    let record = SlotRecord { cloud_config, plan_id, written_at: Timestamp::now(), ..record.clone() };
    record.encode().map_err(WriteError::from)?;
    Ok(record)
}

/// Writes the image into the slot, each layer from its source. The order is the promise: unbootable, incomplete, data,
/// a look at the boot partition, everything else, read back, files to the boot partition, complete.
pub(super) fn write(
    request: &StageRequest,
    image: &Image,
    sources: &[Source],
    feed: Feed,
    meter: &Arc<Meter>,
) -> Result<Staged, StageError> {
    let region = request.disk.slot(&request.slot)?;
    if pins::read(&request.disk)?.contains(&request.slot) {
        return Err(StageError::Pinned(request.slot.clone()));
    }
    // An image whose labels cannot be kept costs no slot.
    let draft = draft(request, image);
    draft.encode().map_err(WriteError::from)?;
    // The slot that runs is found out here, while its boot entry is still there.
    region.check_writable()?;
    boot::open(&request.disk)?.clear(&region.name)?;
    let kept = sources.iter().filter_map(|source| match source {
        Source::Kept(held) => Some(held.clone()),
        _ => None,
    });
    let mut writer = SlotWriter::begin_with(&region, &kept.collect::<Vec<_>>())?;
    let mut tree = Tree::default();
    let coming = sources.iter().filter_map(|source| match source {
        Source::Registry => Some(Coming::Whole),
        Source::Parts(delta) => Some(Coming::Parts(delta.clone())),
        Source::Kept(_) | Source::Copied(..) => None,
    });
    let mut stream = inflate::start(feed, coming.collect());
    for (layer, source) in image.layers.iter().zip(sources) {
        stop_if_asked(meter)?;
        match source {
            Source::Registry => stream = fetch(&request.image, layer, stream, &mut tree, &mut writer)?,
            Source::Parts(_) => {
                let fetched = fetch(&request.image, layer, stream, &mut tree, &mut writer);
                stream = fetched.map_err(|error| not_from_parts(layer, error))?;
            }
            Source::Copied(slot, held) => reuse::copy(slot, held, &mut tree, &mut writer)?,
            Source::Kept(held) => {
                let slot = region.open_ro();
                let slot = slot.map_err(|source| StageError::Read { slot: region.name.clone(), source })?;
                reuse::keep(&slot, held, &mut tree, &mut writer)?;
            }
        }
        let counted = match source {
            Source::Registry => layer.size,
            Source::Parts(delta) => assemble::counted(delta),
            Source::Kept(_) | Source::Copied(..) => 0,
        };
        meter.applied.fetch_add(layer.size.saturating_sub(counted), Ordering::Relaxed);
    }
    writer.settle()?;
    let (kernel, initrd) = boot_files::find(&tree)
        .map_err(|source| StageError::BootFiles { image: request.image.clone(), source })?;
    let (kernel, initrd) = (boot_file(&writer, kernel)?, boot_file(&writer, initrd)?);
    // A full boot partition is better found before the rest is written.
    boot::open(&request.disk)?.make_room(&kernel, &initrd)?;
    let version = version(image, &tree, &writer)?;
    let kernel_options = kernel_options(&request.image, &tree, &writer)?;
    stop_if_asked(meter)?;
    let filesystem = writer.finish(&tree, uuid_of(&image.manifest_digest))?;
    let record = SlotRecord {
        version,
        layers: layer_records(image, &filesystem.sections),
        root_hash: filesystem.root_hash,
        filesystem_length: filesystem.length,
        superblock_sha256: filesystem.superblock_sha256,
        kernel,
        initrd,
        kernel_options,
        written_at: Timestamp::now(),
        ..draft
    };
    stop_if_asked(meter)?;
    boot::open(&request.disk)?.place_files(&region, &record)?;
    let cost = meter.cost(writer.cost());
    writer.seal(&record)?;
    read_again(&region, &record)?;
    Ok(Staged { record, cost })
}

/// What is known of the record before the image is: nearly all that may be long.
fn draft(request: &StageRequest, image: &Image) -> SlotRecord {
    let unknown = || BootFile { path: String::new(), offset: 0, length: 0, sha256: String::new() };
    SlotRecord {
        image: request.image.clone(),
        digest: image.digest.clone(),
        manifest_digest: image.manifest_digest.clone(),
        version: String::new(),
        labels: image.labels.clone(),
        layers: layer_records(image, &vec![hex(&[0; 32]); image.layers.len()]),
        root_hash: hex(&[0; 32]),
        filesystem_length: 0,
        superblock_sha256: hex(&[0; 32]),
        kernel: unknown(),
        initrd: unknown(),
        kernel_options: String::new(),
        cloud_config: request.cloud_config.clone(),
        plan_id: request.plan_id.clone(),
        written_at: Timestamp::now(),
    }
}

/// Applies a layer that comes from the registry.
fn fetch(
    reference: &str,
    layer: &Layer,
    mut stream: TarStream,
    tree: &mut Tree,
    writer: &mut SlotWriter,
) -> Result<TarStream, StageError> {
    let (image, digest) = (reference.to_owned(), layer.digest.clone());
    let refused =
        |source| StageError::Layer { image: reference.to_owned(), digest: layer.digest.clone(), source };
    match slot::unpack(&mut stream, tree, writer) {
        Err(LayerError::Write(error)) if !matches!(error, WriteError::Source(_)) => return Err(error.into()),
        // What broke the bytes on their way says more than where that was noticed.
        Err(source) => {
            return Err(match stream.give_up() {
                Some(Broken::Registry(error)) => error.into(),
                Some(Broken::Stopped) => StageError::Stopped,
                Some(Broken::Parts(error)) => broken_parts(layer, &error),
                Some(Broken::Stream(_)) | None => refused(source),
            });
        }
        Ok(()) => {}
    }
    let actual = stream.next_layer().map_err(|broken| match broken {
        Broken::Registry(error) => error.into(),
        Broken::Stopped => StageError::Stopped,
        Broken::Parts(error) => broken_parts(layer, &error),
        Broken::Stream(source) => refused(LayerError::Stream(source)),
    })?;
    if actual != layer.diff_id {
        return Err(StageError::DiffId { image, digest, expected: layer.diff_id.clone(), actual });
    }
    writer.end_layer(&layer.digest, &layer.diff_id)?;
    Ok(stream)
}

fn broken_parts(layer: &Layer, error: &io::Error) -> StageError {
    StageError::Parts { digest: layer.digest.clone(), reason: error.to_string() }
}

/// What is wrong with a layer that was put together may be wrong with the table alone.
fn not_from_parts(layer: &Layer, error: StageError) -> StageError {
    match error {
        StageError::Layer { digest, source, .. } => StageError::Parts { digest, reason: source.to_string() },
        StageError::DiffId { digest, actual, .. } => {
            StageError::Parts { digest, reason: format!("its diff ID is {actual} then") }
        }
        StageError::Write(WriteError::TooLarge { .. }) => {
            StageError::Parts { digest: layer.digest.clone(), reason: error.to_string() }
        }
        error => error,
    }
}

fn stop_if_asked(meter: &Meter) -> Result<(), StageError> {
    if meter.is_stopped() { Err(StageError::Stopped) } else { Ok(()) }
}

/// What was sealed must be what the next boot will find.
fn read_again(region: &SlotRegion, record: &SlotRecord) -> Result<(), StageError> {
    let again = region.read_record()?;
    if again == *record {
        return Ok(());
    }
    let source = io::Error::other("the slot's record reads back differently");
    Err(StageError::Read { slot: region.name.clone(), source })
}

fn layer_records(image: &Image, sections: &[String]) -> Vec<LayerRecord> {
    let record = |(layer, section): (&Layer, &String)| LayerRecord {
        digest: layer.digest.clone(),
        diff_id: layer.diff_id.clone(),
        index_sha256: section.clone(),
    };
    image.layers.iter().zip(sections).map(record).collect()
}

fn boot_file(writer: &SlotWriter, found: Found) -> Result<BootFile, StageError> {
    let Found { path, block, length } = found;
    let offset = u64::from(block) * BLOCK as u64;
    let mut hash = Sha256::new();
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < length {
        let part = READ.min(length - done);
        buffer.resize(usize::try_from(part).expect("at most 1 MiB"), 0);
        writer.read_at(offset + done, &mut buffer)?;
        hash.update(&buffer);
        done += part;
    }
    Ok(BootFile { path, offset, length, sha256: hex(&hash.finalize()) })
}

fn version(image: &Image, tree: &Tree, writer: &SlotWriter) -> Result<String, StageError> {
    if let Some(version) = image.version() {
        return Ok(printable(version, VERSION_MAX));
    }
    if let Some(file) = boot_files::os_release(tree).filter(|file| file.length <= OS_RELEASE_MAX)
        && let Some(version) = boot_files::version_id(&text(writer, &file)?)
    {
        return Ok(printable(&version, VERSION_MAX));
    }
    Ok(image.digest.chars().take(DIGEST_AS_VERSION).collect())
}

fn kernel_options(reference: &str, tree: &Tree, writer: &SlotWriter) -> Result<String, StageError> {
    let Some(file) = boot_files::kernel_options(tree) else { return Ok(String::new()) };
    if file.length > IMAGE_OPTIONS_MAX as u64 {
        let source = BootFilesError::KernelOptionsTooLong { path: file.path, length: file.length };
        return Err(StageError::BootFiles { image: reference.to_owned(), source });
    }
    Ok(kernel_options::of_image(&text(writer, &file)?))
}

/// A small file of the image.
fn text(writer: &SlotWriter, file: &Found) -> Result<String, StageError> {
    let mut bytes = vec![0; usize::try_from(file.length).expect("every caller looked at its limit")];
    writer.read_at(u64::from(file.block) * BLOCK as u64, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file system's UUID: the same image gets the same one everywhere.
fn uuid_of(digest: &str) -> [u8; 16] {
    let hash = Sha256::digest(digest.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    *uuid::Builder::from_custom_bytes(bytes).as_uuid().as_bytes()
}
