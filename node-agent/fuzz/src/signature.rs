//! Keys, rules, and signatures in every form.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use evenkeel_crds::verification::Verification;
use evenkeel_trust::{Evidence, Policy, PublicKey, Subject, bundle};
use serde_json::json;

const DIGEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Whatever is read, as signed by a key that is trusted: the reading of payloads begins behind the check of the
/// signature.
struct Signer {
    pair: Ed25519KeyPair,
    policy: Policy,
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any 32 bytes are a seed");
    let der: PublicKeyX509Der = pair.public_key().as_der().expect("a key has a DER form");
    let key = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n");
    let policy = Policy::try_from(&Verification::any_of(vec![pem])).expect("one good key is a rule");
    Signer { pair, policy }
});

impl Signer {
    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(message))
    }

    /// What is taken for a signature has to name the digest.
    fn judge(&self, bytes: &[u8], evidence: Evidence) {
        let subject: Subject = format!("r.example/os@sha256:{DIGEST}").parse().expect("a subject");
        if self.policy.check(&subject, &[evidence]).is_ok() {
            let named = bytes.windows(DIGEST.len()).any(|part| part == DIGEST.as_bytes());
            // In JSON a digit may be written as an escape.
            assert!(named || bytes.contains(&b'\\'), "accepted without the digest");
        }
    }
}

/// A key in PEM, rules as JSON, a bundle, a payload, and a statement: the bytes as each of these.
pub fn signature(bytes: &[u8]) {
    let _ = std::str::from_utf8(bytes).map(PublicKey::from_pem);
    let _ = serde_json::from_slice::<Verification>(bytes).map(|rules| Policy::try_from(&rules).is_ok());
    let signer = &*SIGNER;
    let unsigned = Evidence::Bundle(bytes.to_vec());
    let subject: Subject = format!("r.example/os@sha256:{DIGEST}").parse().expect("a subject");
    assert!(signer.policy.check(&subject, &[unsigned]).is_err(), "a bundle that nobody signed was accepted");
    signer.judge(bytes, Evidence::SimpleSigning { payload: bytes.to_vec(), signature: signer.sign(bytes) });
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), bytes.len());
    let bundle = json!({
        "mediaType": bundle::MEDIA_TYPE,
        "dsseEnvelope": {
            "payloadType": PAYLOAD_TYPE,
            "payload": STANDARD.encode(bytes),
            "signatures": [{ "sig": signer.sign(&[head.as_bytes(), bytes].concat()) }],
        },
    });
    signer.judge(bytes, Evidence::Bundle(bundle.to_string().into_bytes()));
}
