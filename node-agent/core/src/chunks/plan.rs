//! What of a layer with a chunk table is fetched: chosen before anything of its data is.

use std::ops::Range;

use super::{position::Position, table::Table};

/// Bytes that a request costs, in headers, round trips and work of the registry: a gap that is smaller is fetched too.
pub const REQUEST_BYTES: u64 = 32 << 10;
/// A table is not worth a look when it has more than this part of the layer: even if nothing of the layer were missing,
/// little would be saved.
const TABLE_PART: u64 = 2;

/// Where each file of a table comes from. `P` is a place where its bytes are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<P> {
    /// For each file of the table: where it is held, or nothing if it is fetched.
    pub places: Vec<Option<P>>,
    /// Bytes of the blob that are fetched, in their order.
    pub ranges: Vec<Range<u64>>,
}

/// Whether a table is worth to be fetched, for a layer of `size` bytes.
pub fn worth_a_look(position: &Position, size: u64) -> bool {
    position.bytes() <= size / TABLE_PART
}

impl<P> Plan<P> {
    /// Takes each file from where `held` says that its content is, given its SHA-256, and fetches all others.
    pub fn new(table: &Table, held: impl Fn(&[u8; 32]) -> Option<P>) -> Self {
        let mut plan = Self { places: Vec::with_capacity(table.files.len()), ranges: Vec::new() };
        for file in &table.files {
            let place = held(&file.digest);
            if place.is_none() {
                let data = table.chunks(file).iter().filter(|chunk| !chunk.zeros);
                data.for_each(|chunk| plan.fetch(chunk.offset..chunk.end));
            }
            plan.places.push(place);
        }
        plan
    }

    /// What fetching costs, in bytes.
    pub fn cost(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start + REQUEST_BYTES).sum()
    }

    /// Whether this is less than to fetch the whole layer of `size` bytes by one request. The table is there already.
    pub fn saves(&self, size: u64) -> bool {
        self.cost() < size.saturating_add(REQUEST_BYTES)
    }

    /// Chunks come in the order of the blob, which the table's reader has checked.
    fn fetch(&mut self, chunk: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if chunk.start - last.end <= REQUEST_BYTES => last.end = chunk.end,
            _ => self.ranges.push(chunk),
        }
    }
}
