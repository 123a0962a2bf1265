//! A layer with a chunk table is put together from what slots of this disk hold and from the parts of it that they do
//! not. What comes out is the layer's tar, byte by byte, and goes the way of every other.

pub(super) mod assemble;
mod estargz;
mod fetch;
mod held;
mod predict;
mod prepare;
mod reader;

pub(super) use {fetch::Asking, prepare::prepare_all};

use std::ops::Range;

use evenkeel_node_agent_core::{chunks::plan::Plan, erofs::BLOCK};

use crate::disk::Window;

/// How a layer is put together. It is worth it: fewer bytes are fetched than the layer has.
#[derive(Debug)]
pub(super) struct Delta {
    plan: Plan<Place>,
    form: Form,
    /// The compressed tar-split, and its bytes when inflated: it was fetched and has the right digest, or it was predicted,
    /// and the layer's diff ID came out with it.
    tar_split: (Vec<u8>, u64),
    /// The slots that [`Place::slot`] means.
    slots: Vec<Window>,
    /// The bytes of the plan's ranges, one behind the other, if they were fetched already.
    fetched: Option<Vec<u8>>,
}

/// What the layer was before.
#[derive(Debug)]
enum Form {
    /// Each chunk is frames of zstd, and the tar-split tells of all of the tar.
    ZstdChunked,
    /// Each chunk is at the beginning of a member of gzip.
    EStargz {
        /// The member of the table, with which the tar ends.
        table: Vec<u8>,
    },
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
    /// Bytes of the blob that are still to be fetched, in the order in which they are needed.
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        if self.fetched.is_some() { &[] } else { &self.plan.ranges }
    }
}
