//! Writing a slot: layers in, file system out, in one pass and without a temporary copy.

pub mod layer;
pub mod pax;
pub mod writer;

pub use layer::{Applied, LayerError, apply};
pub use writer::{Filesystem, SlotWriter, WriteError};
