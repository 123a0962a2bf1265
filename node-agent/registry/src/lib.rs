//! The client of image registries that operator and agent share: from a reference to a digest, to a manifest that was
//! checked, to the bytes of its layers.
//!
//! References and documents are read by the library `oci-spec`, HTTP is spoken by `reqwest`. Here is what lies between
//! (the distribution specification and its token servers) and what makes it last: mirrors, patience, taking up a layer
//! where it broke, showing again who we are, the choice of a platform, limits, and errors that say what to do.

mod attached;
mod auth;
mod blob;
mod challenge;
mod client;
mod content_range;
mod credentials;
mod digest;
mod document;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod from_outside;
mod hosts;
mod http;
mod image;
mod options;
mod pages;
mod part;
mod patience;
mod platform;
mod presence;
mod registry;
mod reputation;
mod retry_after;
mod route;
mod signatures;
mod tls;
mod wanted;

pub use attached::{Artifact, ArtifactLayer, RawManifest, Referrer};
pub use blob::Blob;
pub use document::Document;
pub use error::RegistryError;
pub use image::{Image, Layer};
pub use options::{Limits, RegistryOptions};
pub use part::Part;
pub use platform::Platform;
pub use registry::{Registry, Resolved};
pub use reputation::Reputation;
pub use signatures::subject;
