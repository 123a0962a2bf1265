//! The older form: an image manifest with the tag [`tag`], whose layers are payloads, each with its signature as an
//! annotation. The payload is JSON in the form "simple signing" of `containers/image`
//! (`docs/containers-signature.5.md` there), of which `cosign` uses this:
//!
//! | field | value |
//! |---|---|
//! | `critical.type` | `cosign container image signature` |
//! | `critical.image.docker-manifest-digest` | digest of the image, `sha256:…` |
//! | `critical.identity.docker-reference` | the repository it was signed in; not looked at |
//! | `optional` | annotations of the signer; not looked at |
//!
//! Where it lies is in `cosign`'s `specs/SIGNATURE_SPEC.md`.

use serde::Deserialize;

use super::{Form, Malformed, PAYLOAD_BYTES_MAX, Sealed, base64, parse};

/// Media type of the layers.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The layer's annotation with its signature in Base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const TYPE: &str = "cosign container image signature";

/// The tag of the signatures on an image, from the digits of its SHA-256.
pub fn tag(hex: &str) -> String {
    format!("sha256-{hex}.sig")
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    r#type: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

pub(super) fn open(payload: &[u8], signature: &str) -> Result<Sealed, Malformed> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Malformed(format!("has a payload of {} bytes", payload.len())));
    }
    let signature = base64("signature", signature)?;
    Ok(Sealed { form: Form::SimpleSigning, payload: payload.to_owned(), signature })
}

pub(super) fn digest(payload: &[u8]) -> Result<String, Malformed> {
    let Payload { critical } = parse("payload", payload, PAYLOAD_BYTES_MAX)?;
    if critical.r#type != TYPE {
        return Err(Malformed(format!("has a payload of the type {:?} and not {TYPE:?}", critical.r#type)));
    }
    Ok(critical.image.digest)
}
