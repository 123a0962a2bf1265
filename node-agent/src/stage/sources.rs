//! Where each layer comes from: the slot itself, another slot of the disk, or the registry.

use std::{collections::BTreeSet, sync::Arc};

use evenkeel_registry::{Image, Layer};

use super::{StageRequest, delta::Delta};
use crate::{
    disk::{SlotRegion, Window},
    slot::index::{self, HeldLayer},
};

/// Where a layer comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// It lies in the slot at its place: the layers below it do, too.
    Kept(HeldLayer),
    /// A complete slot has it.
    Copied(Window, HeldLayer),
    /// Nobody has it.
    Registry,
    /// Nobody has it, and slots have so much of it that only parts of it are fetched.
    Parts(Arc<Delta>),
}

/// Finds a source for each layer. Those in `spoilt` were found not to be what the index says.
pub(super) fn find(request: &StageRequest, image: &Image, spoilt: &BTreeSet<String>) -> Vec<Source> {
    let own = request.disk.slot(&request.slot).ok().map(|region| own(&region)).unwrap_or_default();
    let others = others(request);
    let mut own = own.into_iter();
    // Where the next layer's data begins, as long as all from the base on are there.
    let mut next_block = Some(1);
    let mut source = |layer: &Layer| {
        let usable = |held: &HeldLayer| same(held, layer) && !spoilt.contains(&layer.digest);
        let kept = own.next().filter(|held| next_block == Some(held.data.first_block) && usable(held));
        next_block = kept.as_ref().and_then(|held| held.data.first_block.checked_add(held.data.blocks));
        let copied = || {
            let held = |(slot, layers): &(Window, Vec<HeldLayer>)| {
                layers.iter().find(|held| usable(held)).map(|held| (slot.clone(), held.clone()))
            };
            others.iter().find_map(held)
        };
        match (kept, copied) {
            (Some(held), _) => Source::Kept(held),
            (None, copied) => copied().map_or(Source::Registry, |(slot, held)| Source::Copied(slot, held)),
        }
    };
    image.layers.iter().map(&mut source).collect()
}

/// The complete slots of the disk but the one that is written, and the layers in each.
pub(super) fn others(request: &StageRequest) -> Vec<(Window, Vec<HeldLayer>)> {
    let names = request.disk.slot_names().chain(["recovery"]);
    names
        .filter(|name| *name != request.slot)
        .filter_map(|name| request.disk.slot(name).ok())
        .filter_map(|region| complete(&region))
        .filter(|(_, layers)| !layers.is_empty())
        .collect()
}

fn same(held: &HeldLayer, layer: &Layer) -> bool {
    held.data.digest == layer.digest && held.data.diff_id == layer.diff_id
}

/// The layers of the slot that is to be written. What it was given last may have come from anybody: where it is not
/// complete, its lists say what is ours.
fn own(region: &SlotRegion) -> Vec<HeldLayer> {
    if let Some((_, layers)) = complete(region) {
        return layers;
    }
    named(region, &index::listed(region).unwrap_or_default())
}

/// The layers of a complete slot, by the sections that its record names.
fn complete(region: &SlotRegion) -> Option<(Window, Vec<HeldLayer>)> {
    let (record, window) = (region.read_record().ok()?, region.open_ro().ok()?);
    let sections: Vec<String> = record.layers.into_iter().map(|layer| layer.index_sha256).collect();
    Some((window, named(region, &sections)))
}

/// The layers that are named by their sections. What cannot be read is fetched.
fn named(region: &SlotRegion, sections: &[String]) -> Vec<HeldLayer> {
    let held = index::layers(region).unwrap_or_else(|error| {
        tracing::warn!(slot = region.name, %error, "the content index cannot be read");
        Vec::new()
    });
    held.into_iter().filter(|held| sections.contains(&held.section_sha256)).collect()
}
