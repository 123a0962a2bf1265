//! Who must have signed: an image that they did not sign costs the slot nothing.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use evenkeel_crds::verification::{Verification, VerificationRule};
use evenkeel_node_agent::slots::SlotState;
use evenkeel_trust::{Policy, simple_signing};
use serde_json::{Value, json};

use crate::{
    image::{Blob, Image, Recipe, digest, tar},
    machine::Machine,
    registry::Registry,
};

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der = self.0.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// Trust in this one alone, for images of these repositories.
    fn trusted(&self, repositories: &str) -> Policy {
        let rule = VerificationRule {
            repositories: vec![repositories.to_owned()],
            keys: vec![self.pem()],
            threshold: 1,
        };
        Policy::try_from(&Verification { rules: vec![rule] }).unwrap()
    }

    /// A signature that says it is for the digest `signed`, with a note that makes it another blob; as a layer.
    async fn layer(&self, registry: &Registry, signed: &str, note: &str) -> (Blob, Value) {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": "os" },
                "image": { "docker-manifest-digest": signed },
                "type": "cosign container image signature",
            },
            "optional": { "note": note },
        });
        let payload = Blob::new(simple_signing::MEDIA_TYPE, payload.to_string().into_bytes());
        registry.push_blob("os", &payload).await;
        let mut layer = payload.descriptor();
        layer["annotations"] =
            json!({ simple_signing::SIGNATURE_ANNOTATION: STANDARD.encode(self.0.sign(&payload.bytes)) });
        (payload, layer)
    }

    /// Signs `signed`, and lays the signature where that of `image` belongs.
    async fn sign(&self, registry: &Registry, image: &Image, signed: &str) {
        let (_, layer) = self.layer(registry, signed, "").await;
        lay(registry, image, &[layer]).await;
    }
}

/// Lays signatures where those of `image` belong.
async fn lay(registry: &Registry, image: &Image, layers: &[Value]) {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": layers[0], "layers": layers });
    let hex = image.manifest.digest.strip_prefix("sha256:").unwrap();
    let name = format!("os:{}", simple_signing::tag(hex));
    registry.push_manifest(&Blob::new(kind, manifest.to_string().into_bytes()), &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_right_key_signed_is_written() {
    let mut machine = Machine::with_old_system().await;
    let (registry, ours, other) = (Registry::start(), Signer::new(), Signer::new());
    machine.trust = Some(ours.trusted("*"));
    let image = Recipe::with(tar(&[("etc/new", b"new")])).build();
    let tagged = registry.push(&image, "os:1").await;
    let pinned = registry.reference(&format!("os@{}", image.manifest.digest));
    let before = machine.slot("b");
    let names = [&tagged, &pinned];
    for name in names {
        machine.refused_untouched(name, "NotSigned", false, &[&pinned, "cosign sign"]).await;
    }
    other.sign(&registry, &image, &image.manifest.digest).await;
    for name in names {
        machine.refused_untouched(name, "WrongSignature", false, &[&pinned, "none of the keys"]).await;
    }
    let elsewhere = digest(b"another image");
    ours.sign(&registry, &image, &elsewhere).await;
    for name in names {
        machine.refused_untouched(name, "WrongSignature", false, &[&elsewhere]).await;
    }
    assert_eq!(machine.slot("b"), before, "nothing may be lost to an image that nobody signed");
    ours.sign(&registry, &image, &image.manifest.digest).await;
    for name in names {
        assert_eq!(machine.stage(name).await.unwrap().record.digest, image.manifest.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_no_rule_names_is_not_even_asked() {
    let mut machine = Machine::with_old_system().await;
    machine.trust = Some(Signer::new().trusted("registry.example/os/*"));
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let image = format!("127.0.0.1:{port}/os@{}", digest(b"image"));
    machine.refused_untouched(&image, "RepositoryNotTrusted", false, &[&image, "add a rule"]).await;
}

/// It may be from a time when others were trusted.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_slot_holds_already_is_asked_about_too() {
    let mut machine = Machine::empty();
    let registry = Registry::start();
    let image = Recipe::default().build();
    let tagged = registry.push(&image, "os:1").await;
    machine.stage(&tagged).await.unwrap();
    let pinned = registry.reference(&format!("os@{}", image.manifest.digest));
    let signer = Signer::new();
    machine.trust = Some(signer.trusted("*"));
    for name in [&tagged, &pinned] {
        let error = machine.stage(name).await.unwrap_err();
        assert_eq!(error.reason(), "NotSigned", "{error}");
    }
    signer.sign(&registry, &image, &image.manifest.digest).await;
    for name in [&tagged, &pinned] {
        assert_eq!(machine.stage(name).await.unwrap().cost.bytes_written, 0);
    }
    drop(registry);
    let error = machine.stage(&pinned).await.unwrap_err();
    assert!(error.reason() == "RegistryUnreachable" && error.retryable(), "{error}");
    assert_eq!(machine.slot("b").state, SlotState::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_is_damaged_does_not_hide_a_good_one() {
    let mut machine = Machine::with_old_system().await;
    let (registry, signer) = (Registry::start(), Signer::new());
    machine.trust = Some(signer.trusted("*"));
    let image = Recipe::with(tar(&[("etc/new", b"new")])).build();
    let tagged = registry.push(&image, "os:1").await;
    let digest = &image.manifest.digest;
    let (damaged, damaged_layer) = signer.layer(&registry, digest, "damaged").await;
    let (_, large_layer) = signer.layer(&registry, digest, &"x".repeat(70_000)).await;
    std::fs::write(registry.blob_file(&damaged.digest), "damaged").unwrap();
    lay(&registry, &image, &[damaged_layer.clone(), large_layer.clone()]).await;
    machine.refused_untouched(&tagged, "WrongSignature", false, &["cannot be read", &damaged.digest]).await;
    let (_, good_layer) = signer.layer(&registry, digest, "good").await;
    lay(&registry, &image, &[damaged_layer, large_layer, good_layer]).await;
    machine.stage(&tagged).await.unwrap();
}
