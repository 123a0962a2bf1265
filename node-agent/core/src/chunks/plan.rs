//! What of a layer with a chunk table is fetched: chosen before anything of its data is.

use std::ops::Range;

use super::{
    position::Position,
    table::{Chunk, Table},
};

/// Bytes that a request costs, in headers, round trips and work of the registry: a gap that is smaller is fetched too.
pub const REQUEST_BYTES: u64 = 32 << 10;
/// A table is not worth a look when it has more than this part of the layer: even if nothing of the layer were missing,
/// little would be saved.
const TABLE_PART: u64 = 2;

/// Where each file of a table comes from: all that has to be known to put its layer together. `P` is a place where bytes
/// are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<P> {
    /// The files that are not empty, in the order of the tar.
    pub files: Vec<Planned<P>>,
    /// Bytes of the blob that are fetched, in their order.
    pub ranges: Vec<Range<u64>>,
}

/// A file that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned<P> {
    /// Its bytes.
    pub length: u64,
    /// Bytes that its frames have in the blob.
    pub span: u64,
    /// Where it comes from.
    pub origin: Origin<P>,
}

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin<P> {
    /// All of it is held here.
    Held(P),
    /// Each of its chunks is fetched, or held where it says.
    Chunks(Box<[(Chunk, Option<P>)]>),
}

/// Whether a table is worth to be fetched, for a layer of `size` bytes.
pub fn worth_a_look(position: &Position, size: u64) -> bool {
    position.bytes() <= size / TABLE_PART
}

impl<P> Plan<P> {
    /// Takes each file and each chunk from where `held` says that its content is, given its SHA-256, and fetches all
    /// others.
    pub fn new(table: &Table, held: impl Fn(&[u8; 32]) -> Option<P>) -> Self {
        let mut plan = Self { files: Vec::with_capacity(table.files.len()), ranges: Vec::new() };
        for file in &table.files {
            let span = table.span(file);
            let of_chunks = || plan.of_chunks(table.chunks(file), &held);
            let origin = held(&file.digest).map_or_else(of_chunks, Origin::Held);
            plan.files.push(Planned { length: file.length, span: span.end - span.start, origin });
        }
        plan
    }

    /// Plans a file of which not all is held.
    fn of_chunks(&mut self, chunks: &[Chunk], held: impl Fn(&[u8; 32]) -> Option<P>) -> Origin<P> {
        let planned: Box<[_]> = chunks.iter().map(|chunk| (chunk.clone(), held(&chunk.digest))).collect();
        let missing = planned.iter().filter(|(chunk, place)| place.is_none() && !chunk.zeros);
        missing.for_each(|(chunk, _)| self.fetch(chunk.offset..chunk.end));
        Origin::Chunks(planned)
    }

    /// Bytes that are fetched.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// What fetching costs, in bytes, with a tar-split of so many: it may turn out not to be needed, and until then counts.
    pub fn cost(&self, tar_split: u64) -> u64 {
        self.bytes() + tar_split + REQUEST_BYTES * (self.ranges.len() as u64 + 1)
    }

    /// Whether this is less than to fetch the whole layer of `size` bytes by one request. The table is there already.
    pub fn saves(&self, tar_split: u64, size: u64) -> bool {
        self.cost(tar_split) < size.saturating_add(REQUEST_BYTES)
    }

    /// Chunks come in the order of the blob, which the table's reader has checked.
    fn fetch(&mut self, chunk: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if chunk.start - last.end <= REQUEST_BYTES => last.end = chunk.end,
            _ => self.ranges.push(chunk),
        }
    }
}
