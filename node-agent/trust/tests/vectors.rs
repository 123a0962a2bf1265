//! Signatures that the real program made, each with the key that made it. `vectors/make.sh` makes them.

use std::{fs, path::PathBuf};

use evenkeel_crds::verification::Verification;
use evenkeel_trust::{Evidence, KeyError, Policy, PublicKey, Refusal, Subject};

const KINDS: [&str; 6] = ["p256", "p384", "ed25519", "rsa2048", "rsa3072", "rsa4096"];

fn bytes(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(bytes(name)).unwrap().trim_end().to_owned()
}

fn simple(name: &str) -> Evidence {
    let payload = bytes(&format!("{name}.payload.json"));
    Evidence::SimpleSigning { payload, signature: text(&format!("{name}.sig")) }
}

fn bundle(name: &str) -> Evidence {
    Evidence::Bundle(bytes(&format!("{name}.bundle.json")))
}

fn subject() -> Subject {
    format!("registry.example/os@{}", text("digest")).parse().unwrap()
}

fn check(key: &str, subject: &Subject, evidence: Evidence) -> Result<(), Refusal> {
    let keys = Verification::any_of(vec![text(&format!("{key}.pub"))]);
    Policy::try_from(&keys).unwrap().check(subject, &[evidence])
}

/// Each kind of key in each form: made by version 3 with and without a bundle, and by version 2.
fn all() -> impl Iterator<Item = (&'static str, Evidence)> {
    let forms = |kind: &'static str| [bundle(kind), simple(kind), simple(&format!("{kind}-2"))];
    let signed = KINDS.into_iter().flat_map(move |kind| forms(kind).map(|evidence| (kind, evidence)));
    signed.chain(["pss", "p384-sha256"].map(|name| (name, simple(name))))
}

#[test]
fn every_kind_of_key_in_every_form() {
    let mut count = 0;
    for (kind, evidence) in all() {
        check(kind, &subject(), evidence.clone())
            .unwrap_or_else(|error| panic!("{kind} {evidence:?}: {error}"));
        count += 1;
    }
    assert_eq!(count, 20);
}

/// As `openssl` and `base64` write one that `cosign attach signature` takes as it is.
#[test]
fn a_signature_in_lines_is_one() {
    for line_end in ["\n", "\r\n"] {
        let Evidence::SimpleSigning { payload, signature } = simple("rsa4096") else { unreachable!() };
        let lines: Vec<&[u8]> = signature.as_bytes().chunks(76).collect();
        let mut signature = String::from_utf8(lines.join(line_end.as_bytes())).unwrap();
        signature.push_str(line_end);
        check("rsa4096", &subject(), Evidence::SimpleSigning { payload, signature }).unwrap();
    }
}

/// Whether the one name stands for the other's key.
fn same(kind: &str, key: &str) -> bool {
    matches!((kind, key), ("pss", "rsa2048") | ("p384-sha256", "p384"))
}

#[test]
fn keys_that_are_not_taken() {
    for name in ["compressed", "p521", "secp256k1", "rsa1024", "x25519"] {
        let key = PublicKey::from_pem(&text(&format!("{name}.pub")));
        assert!(matches!(key, Err(KeyError::Kind)), "{name}: {key:?}");
    }
}

#[test]
fn every_kind_of_key_for_another_digest_and_by_another_key() {
    let other: Subject = format!("registry.example/os@sha256:{}", "0".repeat(64)).parse().unwrap();
    for (kind, evidence) in all() {
        let refusal = check(kind, &other, evidence.clone()).unwrap_err();
        assert!(refusal.to_string().contains("by a right key and for another digest"), "{kind}: {refusal}");
        for key in KINDS.into_iter().filter(|key| *key != kind && !same(kind, key)) {
            let refusal = check(key, &subject(), evidence.clone()).unwrap_err();
            assert!(refusal.to_string().contains("by none of the keys"), "{kind} with {key}: {refusal}");
        }
    }
}

/// One flipped bit, in each byte in turn, of the payload and of the signature.
#[test]
fn whatever_is_changed_counts_no_more() {
    for kind in ["p256", "ed25519"] {
        let Evidence::SimpleSigning { payload, signature } = simple(kind) else { unreachable!() };
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            let evidence = Evidence::SimpleSigning { payload: changed, signature: signature.clone() };
            assert!(check(kind, &subject(), evidence).is_err(), "{kind}, byte {at} of the payload");
        }
        let Evidence::Bundle(bundle) = bundle(kind) else { unreachable!() };
        // The hint says which key may have made it: it is not signed, and nothing is made of it.
        let text = String::from_utf8(bundle.clone()).unwrap();
        let hint = text.find("\"verificationMaterial\"").unwrap()..text.find("\"dsseEnvelope\"").unwrap();
        for at in
            (0..bundle.len()).filter(|at| !hint.contains(at) && !text.as_bytes()[*at].is_ascii_whitespace())
        {
            let mut changed = bundle.clone();
            changed[at] ^= 1;
            assert!(
                check(kind, &subject(), Evidence::Bundle(changed)).is_err(),
                "{kind}, byte {at} of the bundle"
            );
        }
    }
}

#[test]
fn an_attestation_is_no_signature() {
    let refusal = check("p256", &subject(), bundle("attestation")).unwrap_err();
    assert!(refusal.to_string().contains("is an attestation"), "{refusal}");
}
