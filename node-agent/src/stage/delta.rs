//! A layer with a chunk table is put together from what slots of this disk hold and from the parts of it that they do
//! not. What comes out is the layer's tar, byte by byte, and goes the way of every other.

pub(super) mod assemble;
mod held;
mod prepare;
mod reader;

pub(super) use prepare::{Asking, prepare_all};

use evenkeel_node_agent_core::{chunks::plan::Plan, erofs::BLOCK};

use crate::disk::Window;

/// How a layer is put together. It is worth it: fewer bytes are fetched than the layer has.
#[derive(Debug)]
pub(super) struct Delta {
    plan: Plan<Place>,
    /// The compressed tar-split, whose digest was right, and its bytes when inflated.
    tar_split: (Vec<u8>, u64),
    /// The slots that [`Place::slot`] means.
    slots: Vec<Window>,
}

/// Where a slot holds the bytes of a file or a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: u32,
    /// Bytes from the slot's beginning, in blocks and behind them.
    block: u32,
    skip: u32,
}

impl Place {
    fn at(self) -> u64 {
        u64::from(self.block) * BLOCK as u64 + u64::from(self.skip)
    }
}

impl Delta {
    /// Bytes of the blob that are to be fetched, in the order in which they are needed.
    pub(super) fn ranges(&self) -> &[std::ops::Range<u64>] {
        &self.plan.ranges
    }
}
