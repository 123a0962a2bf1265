//! The client of image registries that operator and agent share: from a reference to a digest, to a manifest that was
//! checked, to the bytes of its layers.
//!
//! It speaks the OCI distribution protocol itself, on an HTTP library: what comes from a registry has limits here, a
//! broken layer is taken up where it broke, and a registry that asks for patience gets it.

mod blob;
mod credentials;
mod digest;
mod error;
mod image;
mod platform;
mod registry;
mod token;
mod transport;

pub use blob::Blob;
pub use error::RegistryError;
pub use image::{Image, Layer};
pub use platform::Platform;
pub use registry::{Registry, RegistryOptions, Resolved};
