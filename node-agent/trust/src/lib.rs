//! Whether an image bears the signatures that it must have. No I/O: whoever asks brings what the registry holds.
//!
//! The signatures are those that `cosign` makes with a key pair, in both of its forms: the older one, a payload of its
//! own with the signature beside it, and the Sigstore bundle 0.3. What counts is the key alone: certificates, time
//! stamps and entries of a transparency log that come along are not looked at.
//!
//! A signature counts for one digest, the one that the reference was resolved to. That is also what `cosign sign` signs
//! when it is given a tag: the index where there is one. A signature on the manifest that an index names for one
//! platform is therefore none on the image. Which repository a signature was made for does not count, as with
//! `cosign verify`: the digest names the bytes, and an image may be copied together with its signatures.

mod ed25519ph;
mod form;
mod key;
mod policy;
mod refusal;
mod repository;
mod subject;

pub use form::{BUNDLE_BYTES_MAX, Evidence, PAYLOAD_BYTES_MAX, bundle, simple_signing};
pub use key::{KeyError, PublicKey};
pub use policy::{Policy, PolicyError};
pub use refusal::{Fault, Refusal};
pub use repository::{Pattern, PatternError};
pub use subject::{Subject, SubjectError};
