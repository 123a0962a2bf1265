//! Where each layer comes from: the slot itself, another slot of the disk, or the registry.

use std::collections::BTreeSet;

use evenkeel_registry::{Image, Layer};

use super::StageRequest;
use crate::{
    disk::{SlotRegion, Window},
    slot::index::{self, HeldLayer},
};

const SLOTS: [&str; 3] = ["a", "b", "recovery"];

/// Where a layer comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// It lies in the slot at its place: the layers below it do, too.
    Kept(HeldLayer),
    /// A complete slot has it.
    Copied(Window, HeldLayer),
    /// Nobody has it.
    Registry,
}

/// Finds a source for each layer. Those in `spoilt` were found not to be what the index says.
pub(super) fn find(request: &StageRequest, image: &Image, spoilt: &BTreeSet<String>) -> Vec<Source> {
    let own = request.disk.slot(&request.slot).ok().map(|region| layers(&region)).unwrap_or_default();
    let others: Vec<(Window, HeldLayer)> = SLOTS
        .iter()
        .filter(|name| **name != request.slot)
        .filter_map(|name| request.disk.slot(name).ok())
        .flat_map(|region| complete(&region))
        .collect();
    let mut own = own.into_iter();
    let mut from_base = true;
    let mut source = |layer: &Layer| {
        let usable = |held: &HeldLayer| same(held, layer) && !spoilt.contains(&layer.digest);
        let kept = own.next().filter(|held| from_base && usable(held));
        from_base = kept.is_some();
        let copied = || others.iter().find(|(_, held)| usable(held)).cloned();
        match (kept, copied) {
            (Some(held), _) => Source::Kept(held),
            (None, copied) => copied().map_or(Source::Registry, |(slot, held)| Source::Copied(slot, held)),
        }
    };
    image.layers.iter().map(&mut source).collect()
}

fn same(held: &HeldLayer, layer: &Layer) -> bool {
    held.data.digest == layer.digest && held.data.diff_id == layer.diff_id
}

/// The layers of a complete slot, by the sections that its record names.
fn complete(region: &SlotRegion) -> Vec<(Window, HeldLayer)> {
    let (Ok(record), Ok(window)) = (region.read_record(), region.open_ro()) else { return Vec::new() };
    let named =
        |held: &HeldLayer| record.layers.iter().any(|layer| layer.index_sha256 == held.section_sha256);
    layers(region).into_iter().filter(named).map(|held| (window.clone(), held)).collect()
}

/// What cannot be read is fetched.
fn layers(region: &SlotRegion) -> Vec<HeldLayer> {
    index::layers(region).unwrap_or_else(|error| {
        tracing::warn!(slot = region.name, %error, "the content index cannot be read");
        Vec::new()
    })
}
