//! A layer that a slot of this disk holds becomes one of the slot that is written, without its blob.

use evenkeel_node_agent_core::{
    content_index::{Section, entries::Change},
    tree::Tree,
};

use super::{
    SlotWriter, WriteError,
    index::{self, HeldLayer},
};
use crate::disk::Window;

/// Takes over a layer of the slot that is written, which is at its place already. Whether its data is what it should be
/// is told when the writer has settled, or before.
pub fn keep(
    slot: &Window,
    layer: &HeldLayer,
    tree: &mut Tree,
    writer: &mut SlotWriter,
) -> Result<(), WriteError> {
    let section = section(slot, layer)?;
    replay(&section, layer, tree, writer)?;
    writer.keep_data(layer)
}

/// Copies a layer from another slot. Whether its data is what it should be is told when the writer has settled, or
/// before.
pub fn copy(
    from: &Window,
    layer: &HeldLayer,
    tree: &mut Tree,
    writer: &mut SlotWriter,
) -> Result<(), WriteError> {
    let section = section(from, layer)?;
    replay(&section, layer, tree, writer)?;
    let first_block = writer.next_block()?;
    writer.copy_data(from, layer)?;
    let draft = Some(section.moved(first_block));
    writer.end_with(&layer.data.digest, Some(layer.data.hash), draft)
}

fn section(slot: &Window, layer: &HeldLayer) -> Result<Section, WriteError> {
    let section = index::section(slot, layer).map_err(|_| held(layer))?;
    if section.sha256 == layer.section_sha256 { Ok(section) } else { Err(held(layer)) }
}

/// Does to the tree what the layer's tar would do.
fn replay(
    section: &Section,
    layer: &HeldLayer,
    tree: &mut Tree,
    writer: &SlotWriter,
) -> Result<(), WriteError> {
    tree.begin_layer();
    let mut entries = section.entries(writer.next_block()?);
    while let Some((path, change)) = entries.next_entry().map_err(|_| held(layer))? {
        let changed = match change {
            Change::Put(kind, attributes) => tree.put(path, kind, attributes),
            Change::HardLink(target) => tree.hard_link(path, &target),
        };
        changed.map_err(|_| held(layer))?;
    }
    Ok(())
}

fn held(layer: &HeldLayer) -> WriteError {
    WriteError::Held { digest: layer.data.digest.clone() }
}
