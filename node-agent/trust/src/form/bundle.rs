//! The newer form: a manifest that names the image as its `subject`, with one layer, a Sigstore bundle 0.3. The bundle
//! is the JSON form of the message `dev.sigstore.bundle.v1.Bundle` of `sigstore/protobuf-specs`, of which a signature
//! on an image has this:
//!
//! | field | value |
//! |---|---|
//! | `mediaType` | [`MEDIA_TYPE`] |
//! | `verificationMaterial` | a hint to the key, log entries; not looked at |
//! | `dsseEnvelope.payloadType` | `application/vnd.in-toto+json` |
//! | `dsseEnvelope.payload` | the statement, in Base64 |
//! | `dsseEnvelope.signatures` | exactly one, its `sig` in Base64 |
//!
//! The envelope is that of `secure-systems-lab/dsse`, its signature is over
//! `DSSEv1 LENGTH payloadType LENGTH payload`, with the payload as it is and lengths as decimal digits. The statement
//! is that of `in-toto/attestation` (`spec/v1/statement.md`):
//!
//! | field | value |
//! |---|---|
//! | `_type` | `https://in-toto.io/Statement/v1` |
//! | `predicateType` | `https://sigstore.dev/cosign/sign/v1` |
//! | `subject[].digest.sha256` | digest of the image |
//!
//! `cosign attest` writes the same with another `predicateType`: a list of packages, or the outcome of a scan. By such
//! a statement the key's owner says something about the image, and not that it may be run. A bundle with a
//! `messageSignature` is on a file; `cosign` makes none on images.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{BUNDLE_BYTES_MAX, Form, Malformed, Sealed, base64, parse};

/// Media type of the layer, and `artifactType` of the manifest.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The same, as it was called before.
pub const MEDIA_TYPE_BEFORE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What `cosign sign` states.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

pub(super) fn open(bytes: &[u8]) -> Result<Sealed, Malformed> {
    let Bundle { media_type, dsse_envelope, message_signature } = parse("bundle", bytes, BUNDLE_BYTES_MAX)?;
    if media_type != MEDIA_TYPE && media_type != MEDIA_TYPE_BEFORE {
        return Err(Malformed(format!("is a bundle of the type {media_type:?} and not {MEDIA_TYPE:?}")));
    }
    let (Some(envelope), None) = (dsse_envelope, message_signature) else {
        return Err(Malformed("is a bundle without an envelope: it is on a file and not on an image".into()));
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(Malformed(format!("holds {:?} and not {PAYLOAD_TYPE:?}", envelope.payload_type)));
    }
    let [signature] = &envelope.signatures[..] else {
        return Err(Malformed(format!(
            "has an envelope with {} signatures and not one",
            envelope.signatures.len()
        )));
    };
    let signature = base64("signature", &signature.sig)?;
    Ok(Sealed { form: Form::Statement, payload: base64("payload", &envelope.payload)?, signature })
}

/// What a signature in an envelope is over: type and payload, each with its length in front.
pub(super) fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

pub(super) fn digests(payload: &[u8]) -> Result<Vec<String>, Malformed> {
    let statement: Statement = parse("statement", payload, BUNDLE_BYTES_MAX)?;
    if statement.predicate_type != SIGN {
        return Err(Malformed(format!(
            "is an attestation ({}) and no signature: sign with `cosign sign`",
            statement.predicate_type
        )));
    }
    if statement.kind != STATEMENT_TYPE {
        return Err(Malformed(format!("has a statement of the type {:?}", statement.kind)));
    }
    let subjects = statement.subject.into_iter();
    Ok(subjects
        .filter_map(|mut subject| subject.digest.remove("sha256"))
        .map(|hex| format!("sha256:{hex}"))
        .collect())
}
