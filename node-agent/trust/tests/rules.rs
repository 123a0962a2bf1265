//! What counts as signed, under which rules. The signatures are made here; those of the real program are in
//! `vectors.rs`.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use evenkeel_crds::verification::{Verification, VerificationRule};
use evenkeel_trust::{Evidence, Policy, PolicyError, Refusal, Subject, bundle};
use serde_json::{Value, json};

const REPOSITORY: &str = "registry.example/team/os";

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der = self.0.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(message))
    }

    fn simple(&self, payload: &Value) -> Evidence {
        let payload = payload.to_string().into_bytes();
        Evidence::SimpleSigning { signature: self.sign(&payload), payload }
    }

    fn bundle(&self, statement: &Value) -> Value {
        let payload = statement.to_string();
        let kind = "application/vnd.in-toto+json";
        let encoded = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        json!({
            "mediaType": bundle::MEDIA_TYPE,
            "verificationMaterial": { "publicKey": { "hint": "whatever" } },
            "dsseEnvelope": {
                "payloadType": kind,
                "payload": STANDARD.encode(&payload),
                "signatures": [{ "sig": self.sign(encoded.as_bytes()), "keyid": "" }],
            },
        })
    }
}

fn hex(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn subject() -> Subject {
    format!("{REPOSITORY}@sha256:{}", hex('a')).parse().unwrap()
}

fn payload(digit: char) -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": "elsewhere.example/os" },
            "image": { "docker-manifest-digest": format!("sha256:{}", hex(digit)) },
            "type": "cosign container image signature",
        },
        "optional": { "who": "me" },
    })
}

fn statement(digit: char) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha512": "00" } }, { "digest": { "sha256": hex(digit) }, "annotations": {} }],
        "predicateType": bundle::SIGN,
        "predicate": {},
    })
}

fn encoded(bundle: &Value) -> Evidence {
    Evidence::Bundle(bundle.to_string().into_bytes())
}

fn rule(repositories: &[&str], signers: &[&Signer], threshold: i32) -> VerificationRule {
    VerificationRule {
        repositories: repositories.iter().map(ToString::to_string).collect(),
        keys: signers.iter().map(|signer| signer.pem()).collect(),
        threshold,
    }
}

fn policy(rules: &[VerificationRule]) -> Policy {
    Policy::try_from(&Verification { rules: rules.to_vec() }).unwrap()
}

fn reason(outcome: Result<(), Refusal>) -> &'static str {
    outcome.map_or_else(|refusal| refusal.reason(), |()| "")
}

#[test]
fn both_forms_count_and_only_for_their_digest() {
    let signer = Signer::new();
    let policy = policy(&[rule(&["*"], &[&signer], 1)]);
    for (digit, expected) in [('a', ""), ('b', "WrongSignature")] {
        let simple = signer.simple(&payload(digit));
        let bundle = encoded(&signer.bundle(&statement(digit)));
        for evidence in [simple, bundle] {
            assert_eq!(
                reason(policy.check(&subject(), std::slice::from_ref(&evidence))),
                expected,
                "{evidence:?}"
            );
        }
    }
    assert_eq!(reason(policy.check(&subject(), &[])), "NotSigned");
    let other = encoded(&signer.bundle(&statement('b')));
    let refusal = policy.check(&subject(), &[other]).unwrap_err();
    assert!(refusal.to_string().contains(&format!("for another digest, sha256:{}", hex('b'))), "{refusal}");
}

#[test]
fn a_good_signature_counts_among_bad_ones() {
    let (ours, other) = (Signer::new(), Signer::new());
    let policy = policy(&[rule(&["*"], &[&ours], 1)]);
    let mut evidence = vec![
        Evidence::Unreadable("gone".into()),
        other.simple(&payload('a')),
        ours.simple(&payload('b')),
        Evidence::Bundle(b"{".to_vec()),
    ];
    let refusal = policy.check(&subject(), &evidence).unwrap_err();
    assert_eq!(refusal.reason(), "WrongSignature");
    for words in ["cannot be read: gone", "made by none of the keys", "another digest", "has a bundle that"] {
        assert!(refusal.to_string().contains(words), "{words}: {refusal}");
    }
    evidence.push(ours.simple(&payload('a')));
    policy.check(&subject(), &evidence).unwrap();
}

#[test]
fn enough_different_keys_must_have_signed() {
    let (one, two, three) = (Signer::new(), Signer::new(), Signer::new());
    let policy = policy(&[rule(&["*"], &[&one, &two, &three], 2)]);
    let by = |signer: &Signer| encoded(&signer.bundle(&statement('a')));
    let twice = [by(&one), one.simple(&payload('a'))];
    assert_eq!(reason(policy.check(&subject(), &twice)), "TooFewSignatures", "one key signed twice");
    policy.check(&subject(), &[by(&one), three.simple(&payload('a'))]).unwrap();
}

#[test]
fn every_rule_about_the_repository_has_to_hold() {
    let (build, release) = (Signer::new(), Signer::new());
    let policy = policy(&[
        rule(&["registry.example/*"], &[&build], 1),
        rule(&["registry.example/team/os"], &[&release], 1),
    ]);
    let by_build = build.simple(&payload('a'));
    assert_eq!(reason(policy.check(&subject(), std::slice::from_ref(&by_build))), "WrongSignature");
    policy.check(&subject(), &[by_build.clone(), release.simple(&payload('a'))]).unwrap();
    let neighbour: Subject = format!("registry.example/other@sha256:{}", hex('a')).parse().unwrap();
    policy.check(&neighbour, std::slice::from_ref(&by_build)).unwrap();
    let elsewhere: Subject = format!("evil.example/team/os@sha256:{}", hex('a')).parse().unwrap();
    assert_eq!(reason(policy.check(&elsewhere, &[by_build])), "RepositoryNotTrusted");
}

#[test]
fn a_bundle_that_is_no_signature_on_an_image() {
    let signer = Signer::new();
    let policy = policy(&[rule(&["*"], &[&signer], 1)]);
    let good = signer.bundle(&statement('a'));
    policy.check(&subject(), &[encoded(&good)]).unwrap();
    let stated = |key: &str, value: Value| {
        let mut statement = statement('a');
        statement[key] = value;
        signer.bundle(&statement)
    };
    let with = |path: &str, value: Value| {
        let mut bundle = good.clone();
        *bundle.pointer_mut(path).unwrap() = value;
        bundle
    };
    let mut message = good.clone();
    message["messageSignature"] = json!({ "signature": "" });
    let signature = good["dsseEnvelope"]["signatures"][0].clone();
    for (bundle, words) in [
        (stated("predicateType", json!("https://spdx.dev/Document")), "is an attestation"),
        (stated("_type", json!("https://in-toto.io/Statement/v9")), "a statement of the type"),
        (stated("subject", json!([])), "for another digest, none"),
        (stated("subject", json!(null)), "a statement that cannot be read"),
        (
            with("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.1")),
            "bundle of the type",
        ),
        (with("/dsseEnvelope/payloadType", json!("text/plain")), "holds \"text/plain\""),
        (with("/dsseEnvelope/signatures", json!([])), "with 0 signatures"),
        (with("/dsseEnvelope/signatures", json!([signature, signature])), "with 2 signatures"),
        (with("/dsseEnvelope/signatures/0/sig", json!("?")), "not Base64"),
        (with("/dsseEnvelope/signatures/0/sig", json!("")), "made by none of the keys"),
        (with("/dsseEnvelope/payload", json!("e30=")), "made by none of the keys"),
        (with("/dsseEnvelope", json!(null)), "without an envelope"),
        (message, "without an envelope"),
    ] {
        let refusal = policy.check(&subject(), &[encoded(&bundle)]).unwrap_err();
        assert!(refusal.to_string().contains(words), "{words}: {refusal}");
    }
}

#[test]
fn a_payload_that_is_no_signature_on_an_image() {
    let signer = Signer::new();
    let policy = policy(&[rule(&["*"], &[&signer], 1)]);
    let mut other_type = payload('a');
    other_type["critical"]["type"] = json!("receipt");
    let mut long = payload('a');
    long["optional"]["pad"] = json!("x".repeat(70_000));
    let twice =
        format!("{{\"critical\":{},\"critical\":{}}}", payload('b')["critical"], payload('a')["critical"]);
    let twice =
        Evidence::SimpleSigning { signature: signer.sign(twice.as_bytes()), payload: twice.into_bytes() };
    for (evidence, words) in [
        (signer.simple(&other_type), "payload of the type \"receipt\""),
        (signer.simple(&long), "has a payload of 70"),
        (signer.simple(&json!([])), "a payload that cannot be read"),
        (twice, "duplicate field"),
    ] {
        let refusal = policy.check(&subject(), &[evidence]).unwrap_err();
        assert!(refusal.to_string().contains(words), "{words}: {refusal}");
    }
}

#[test]
fn rules_that_cannot_be_followed_are_named() {
    let (one, two) = (Signer::new(), Signer::new());
    let with_keys = |keys: &[&str]| VerificationRule {
        keys: keys.iter().map(ToString::to_string).collect(),
        ..rule(&["*"], &[], 1)
    };
    let (pem, other) = (one.pem(), two.pem());
    let both = format!("{pem}{other}");
    let private = pem.replace("PUBLIC", "PRIVATE");
    let cut = pem.replacen("MC", "", 1);
    for (rules, words) in [
        (vec![], "no rules"),
        (vec![rule(&["*"], &[&one], 2)], "rules[0].threshold is 2"),
        (vec![rule(&["*"], &[&one], 0)], "rules[0].threshold is 0"),
        (vec![rule(&["*"], &[], 1)], "the number of keys, 0"),
        (vec![rule(&["*"], &[&one], 1), rule(&["os"], &[&one], 1)], "rules[1].repositories: \"os\""),
        (vec![rule(&["*"], &[&one, &two, &one], 1)], "rules[0].keys[2] is there twice"),
        (vec![with_keys(&[&both])], "rules[0].keys[0]: it is not one public key"),
        (vec![with_keys(&[""])], "it is not one public key"),
        (vec![with_keys(&[&private])], "it is a private key"),
        (vec![with_keys(&[&cut])], "rules[0].keys[0]"),
        (vec![with_keys(&[&"x".repeat(5000)])], "more than 4096 bytes"),
    ] {
        let error: PolicyError = Policy::try_from(&Verification { rules }).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}
