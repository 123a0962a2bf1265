//! The content index in a slot: which layers it holds, whole or half written, and what must be true of their data.

use std::io;

use evenkeel_node_agent_core::{
    content_index::{FOOTER, IndexError, LayerData, Section, section_length},
    digest::hex,
    erofs::BLOCK,
    section_list::{self, LIST_LENGTH, LISTS_AT, SECTIONS_MAX},
};

use crate::disk::{SlotRegion, Window};

/// A layer that a slot says it holds. Its data must be compared with its hash.
#[derive(Clone, Debug)]
pub struct HeldLayer {
    /// What it is and where its data lies.
    pub data: LayerData,
    /// SHA-256 of its section, lower-case hex.
    pub section_sha256: String,
    /// Bytes from the start of the slot to its section.
    pub section_at: u64,
    /// Bytes of the section.
    pub section_length: usize,
}

/// The layers in a slot, base first, as far as its sections can be read.
pub fn layers(region: &SlotRegion) -> io::Result<Vec<HeldLayer>> {
    let slot = region.open_ro()?;
    let (mut held, mut end) = (Vec::new(), region.record_at());
    while held.len() < SECTIONS_MAX {
        let Some(section) = section_before(&slot, end)? else { break };
        end -= section.length() as u64;
        held.push(HeldLayer {
            section_at: end,
            section_length: section.length(),
            section_sha256: section.sha256,
            data: section.data,
        });
    }
    Ok(held)
}

/// The SHA-256 of each section that a slot which is being written has for sure, lower-case hex.
pub fn listed(region: &SlotRegion) -> io::Result<Vec<String>> {
    let slot = region.open_ro()?;
    let mut named = Vec::new();
    for at in LISTS_AT {
        let mut bytes = vec![0; LIST_LENGTH];
        slot.read_at(region.record_at() + at, &mut bytes)?;
        named.extend(section_list::parse(&bytes).into_iter().flatten().map(|hash| hex(&hash)));
    }
    Ok(named)
}

/// Reads a layer's section again.
pub fn section(slot: &Window, layer: &HeldLayer) -> io::Result<Section> {
    let mut bytes = vec![0; layer.section_length];
    slot.read_at(layer.section_at, &mut bytes)?;
    Section::parse(bytes).map_err(io::Error::other)
}

/// The section that ends at `end`; none where nothing sensible does.
fn section_before(slot: &Window, end: u64) -> io::Result<Option<Section>> {
    let Some(footer_at) = end.checked_sub(FOOTER as u64) else { return Ok(None) };
    let mut footer = [0; FOOTER];
    slot.read_at(footer_at, &mut footer)?;
    let length = match section_length(&footer) {
        Ok(length) if length as u64 + BLOCK as u64 <= end => length,
        _ => return Ok(None),
    };
    let mut bytes = vec![0; length];
    slot.read_at(end - length as u64, &mut bytes)?;
    match Section::parse(bytes) {
        Ok(section) => Ok(Some(section)),
        Err(IndexError::Absent | IndexError::Damaged(_)) => Ok(None),
    }
}
