//! Writing a slot: layers in, file system out, in one pass and without a temporary copy.

mod entry;
mod error;
pub mod index;
pub mod inflate;
mod lane;
mod last_header;
pub mod layer;
pub mod pax;
pub mod reuse;
pub mod scrub;
pub mod verity;
pub mod writer;

pub use error::WriteError;
pub use inflate::Inflater;
pub use layer::{LayerError, apply, unpack};
pub use writer::{Filesystem, SlotWriter, WriteCost};
