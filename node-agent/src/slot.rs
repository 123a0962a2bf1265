//! Writing a slot: layers in, file system out, in one pass and without a temporary copy.

mod disk_thread;
mod entry;
pub mod layer;
pub mod pax;
pub mod verity;
pub mod writer;

pub use layer::{LayerError, apply};
pub use writer::{Filesystem, SlotWriter, WriteError};
