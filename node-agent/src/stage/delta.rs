//! A layer with a chunk table is put together from what slots of this disk hold and from the parts of it that they do
//! not. What comes out is the layer's tar, byte by byte, and goes the way of every other.

pub(super) mod assemble;
mod held;
mod prepare;
mod reader;

pub(super) use prepare::{Asking, prepare_all};

use evenkeel_node_agent_core::chunks::{plan::Plan, table::Table};

use crate::disk::Window;

/// How a layer is put together. It is worth it: fewer bytes are fetched than the layer has.
#[derive(Debug)]
pub(super) struct Delta {
    table: Table,
    plan: Plan<Place>,
    /// The compressed tar-split, whose digest was right, and its bytes when inflated.
    tar_split: (Vec<u8>, u64),
    /// The slots that [`Place::slot`] means.
    slots: Vec<Window>,
}

/// Where a slot holds a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: u32,
    block: u32,
}

impl Delta {
    /// Bytes of the blob that are to be fetched, in the order in which they are needed.
    pub(super) fn ranges(&self) -> &[std::ops::Range<u64>] {
        &self.plan.ranges
    }
}
