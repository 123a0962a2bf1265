//! The client of image registries that operator and agent share: from a reference to a digest, to a manifest that was
//! checked, to the bytes of its layers.
//!
//! The protocol is spoken by the library `oci-client`. Here is what it leaves to its users: patience, taking up a layer
//! where it broke, showing again who we are, the choice of a platform, limits, and errors that say what to do.

mod blob;
mod clients;
mod credentials;
mod digest;
mod error;
mod image;
mod patience;
mod platform;
mod registry;

pub use blob::Blob;
pub use error::RegistryError;
pub use image::{Image, Layer};
pub use platform::Platform;
pub use registry::{Registry, RegistryOptions, Resolved};
