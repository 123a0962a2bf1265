//! The forms in which `cosign` keeps signatures.

pub mod bundle;
pub mod simple_signing;

use serde::de::DeserializeOwned;

/// Bytes of a payload. `cosign` writes some 250, and annotations that a person adds.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a bundle. `cosign` writes some 1000 for a key, and up to 10 KB with certificates and a log's entry.
pub const BUNDLE_BYTES_MAX: usize = 256 << 10;

/// One thing that a registry holds beside an image and that may be a signature on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The older form.
    SimpleSigning {
        /// The layer's bytes.
        payload: Vec<u8>,
        /// The layer's annotation [`simple_signing::SIGNATURE_ANNOTATION`].
        signature: String,
    },
    /// The bytes of a Sigstore bundle.
    Bundle(Vec<u8>),
    /// It is there and could not be had, and why.
    Unreadable(String),
}

/// Why a signature object is none. In words that go after "a signature object".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub String);

/// A signature with what it is on, taken apart, and not believed yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    form: Form,
    payload: Vec<u8>,
    pub signature: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    SimpleSigning,
    Statement,
}

impl Sealed {
    pub fn open(evidence: &Evidence) -> Result<Self, Malformed> {
        match evidence {
            Evidence::SimpleSigning { payload, signature } => simple_signing::open(payload, signature),
            Evidence::Bundle(bytes) => bundle::open(bytes),
            Evidence::Unreadable(why) => Err(Malformed(format!("cannot be read: {why}"))),
        }
    }

    /// The bytes that the signature is over.
    pub fn message(&self) -> Vec<u8> {
        match self.form {
            Form::SimpleSigning => self.payload.clone(),
            Form::Statement => bundle::pre_authentication_encoding(&self.payload),
        }
    }

    /// The digests that it says it is for, `sha256:…`. To be asked only when a known key made the signature.
    pub fn digests(&self) -> Result<Vec<String>, Malformed> {
        match self.form {
            Form::SimpleSigning => Ok(vec![simple_signing::digest(&self.payload)?]),
            Form::Statement => bundle::digests(&self.payload),
        }
    }
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8], limit: usize) -> Result<T, Malformed> {
    if bytes.len() > limit {
        return Err(Malformed(format!(
            "has {} bytes in its {what}, of which {limit} are allowed",
            bytes.len()
        )));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Malformed(format!("has a {what} that cannot be read: {error}")))
}

/// Line ends are passed over, as Go's library and with it `cosign` does: a signature that was made by another program and
/// attached (`cosign attach signature`) may have some.
fn base64(what: &str, text: &str) -> Result<Vec<u8>, Malformed> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text: String = text.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    STANDARD.decode(text).map_err(|error| Malformed(format!("has a {what} that is not Base64: {error}")))
}
