//! What `cosign` signs is accepted, and what is refused `cosign` refuses too, both asked about the same registry.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use evenkeel_e2e::{
    process::Scratch,
    registry::{self, Options, Pushed, Registry, digest_of},
};
use evenkeel_tests::{
    binaries::Binaries,
    cosign::{Cosign, Form, Key, Kind},
    os_image::OsImage,
};
use serde_json::{Value, json};
use tokio::process::Command;

const FORMS: [Form; 2] = [Form::Bundle, Form::Classic];
const REPOSITORY: &str = "team/os";

struct Place {
    cosign: Cosign,
    registry: Registry,
    _folder: Scratch,
}

/// What `evenkeel-agent verify-image` came to: its exit code, and what it said.
type Verdict = (Option<i32>, String);

impl Place {
    async fn new() -> Result<Self> {
        let folder = Scratch::new("signatures")?;
        let storage = folder.path().join("registry");
        let registry = Registry::start(&storage, Options::default());
        let (registry, cosign) = tokio::try_join!(registry, Cosign::new())?;
        Ok(Self { cosign, registry, _folder: folder })
    }

    async fn push(&self, version: &str) -> Result<Pushed> {
        OsImage { filler: 1 << 10, initrd: 1 << 10, ..OsImage::good(version) }
            .push(&self.registry, REPOSITORY)
            .await
    }

    async fn agent(&self, image: &str, key: &Key) -> Result<Verdict> {
        let mut command = Command::new(&Binaries::built().await?.agent);
        command.args(["verify-image", image, "--plain-http", "--key"]).arg(&key.public).kill_on_drop(true);
        let output = command.output().await.context("run evenkeel-agent")?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Both accept it.
    async fn accepted(&self, what: &str, image: &str, key: &Key) -> Result<()> {
        let (code, said) = self.agent(image, key).await?;
        ensure!(code == Some(0), "{what}: refused: {said}");
        ensure!(self.cosign.accepts(image, key).await?, "{what}: cosign refuses what we accept");
        Ok(())
    }

    /// Both refuse it; we say why.
    async fn refused(&self, what: &str, image: &str, key: &Key, words: &str) -> Result<()> {
        let (code, said) = self.agent(image, key).await?;
        ensure!(code == Some(3), "{what}: exit code {code:?} and not 3: {said}");
        ensure!(said.contains(words), "{what}: {words:?} is not in: {said}");
        ensure!(!self.cosign.accepts(image, key).await?, "{what}: cosign accepts what we refuse");
        Ok(())
    }

    /// A document of the registry, by its tag.
    fn document(&self, tag: &str) -> Result<Value> {
        let tags = self.registry.storage().join("docker/registry/v2/repositories").join(REPOSITORY);
        let link = tags.join("_manifests/tags").join(tag).join("current/link");
        let digest = fs::read_to_string(&link).with_context(|| format!("read {}", link.display()))?;
        Ok(serde_json::from_slice(&self.blob(&digest)?)?)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let hex = digest.strip_prefix("sha256:").context("a digest begins with its algorithm")?;
        let blobs = self.registry.storage().join("docker/registry/v2/blobs/sha256");
        Ok(fs::read(blobs.join(&hex[..2]).join(hex).join("data"))?)
    }

    async fn put(&self, tag: &str, blobs: &[Vec<u8>], document: &Value) -> Result<()> {
        registry::push_document(&self.registry, REPOSITORY, tag, blobs, document).await
    }
}

/// The tag under which signatures of one form are found.
fn tag(image: &Pushed, form: Form) -> String {
    let name = image.digest.replace(':', "-");
    if form == Form::Classic { format!("{name}.sig") } else { name }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cosign_signs_is_accepted_and_nothing_else() -> Result<()> {
    let place = Place::new().await?;
    let other = place.cosign.key("other", Kind::P256).await?;
    for kind in [Kind::P256, Kind::P384, Kind::Ed25519, Kind::Rsa] {
        let key = place.cosign.key(&format!("{kind:?}"), kind).await?;
        for form in FORMS {
            let what = format!("{kind:?} {form:?}");
            let image = place.push(&what.to_lowercase().replace(' ', "-")).await?;
            place.refused(&what, &image.tagged, &key, "is not signed: sign it with").await?;
            place.cosign.sign(&image.pinned, &key, form).await?;
            // What this version of cosign signs with Ed25519 it does not accept itself: it signs a hash of the message, and
            // checks as if it had signed the message.
            if kind == Kind::Ed25519 {
                let (code, said) = place.agent(&image.pinned, &key).await?;
                ensure!(code == Some(0), "{what}: {said}");
            } else {
                place.accepted(&what, &image.pinned, &key).await?;
                place.accepted(&what, &image.tagged, &key).await?;
            }
            place.refused(&what, &image.pinned, &other, "made by none of the keys").await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_were_moved_or_changed_are_refused() -> Result<()> {
    let place = Place::new().await?;
    let key = place.cosign.key("key", Kind::P256).await?;
    let signed = place.push("signed").await?;
    for form in FORMS {
        place.cosign.sign(&signed.pinned, &key, form).await?;
    }
    let bundle_of = |list: &Value| -> Result<(Value, Value)> {
        let digest = list["manifests"][0]["digest"].as_str().context("a list names manifests")?;
        let manifest: Value = serde_json::from_slice(&place.blob(digest)?)?;
        let layer = manifest["layers"][0]["digest"].as_str().context("a manifest has layers")?;
        Ok((serde_json::from_slice(&place.blob(layer)?)?, manifest))
    };
    let classic = place.document(&tag(&signed, Form::Classic))?;
    let list = place.document(&tag(&signed, Form::Bundle))?;
    let (bundle, manifest) = bundle_of(&list)?;
    let payload = classic["layers"][0]["digest"].as_str().context("a manifest has layers")?;
    let payload = String::from_utf8(place.blob(payload)?)?;

    let moved = place.push("moved-classic").await?;
    place.put(&tag(&moved, Form::Classic), &[], &classic).await?;
    place.refused("a signature tag of another image", &moved.pinned, &key, "for another digest").await?;

    let moved = place.push("moved-bundle").await?;
    place.put(&tag(&moved, Form::Bundle), &[], &list).await?;
    place.refused("a list of another image's referrers", &moved.pinned, &key, "for another digest").await?;

    let forged = place.push("forged-classic").await?;
    let lie = payload.replace(&signed.digest, &forged.digest).into_bytes();
    let mut document = classic.clone();
    document["layers"][0]["digest"] = json!(digest_of(&lie));
    place.put(&tag(&forged, Form::Classic), &[lie], &document).await?;
    place.refused("a payload that was changed", &forged.pinned, &key, "made by none of the keys").await?;

    let forged = place.push("forged-bundle").await?;
    let lie = forge(&bundle, &signed.digest, &forged.digest)?;
    let (lie_document, lie_list) = referring(&manifest, &list, &lie)?;
    place.put("forged-bundle-manifest", std::slice::from_ref(&lie), &lie_document).await?;
    place.put(&tag(&forged, Form::Bundle), &[], &lie_list).await?;
    place.refused("a statement that was changed", &forged.pinned, &key, "made by none of the keys").await?;

    let garbled = place.push("garbled").await?;
    let mut document = classic.clone();
    document["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"] = json!("MEUCIQ==");
    place.put(&tag(&garbled, Form::Classic), &[], &document).await?;
    place.refused("a signature that is none", &garbled.pinned, &key, "made by none of the keys").await?;

    place.accepted("the one that all were made from", &signed.pinned, &key).await
}

/// The bundle with another digest in its statement, under the same signature.
fn forge(bundle: &Value, from: &str, to: &str) -> Result<Vec<u8>> {
    let mut bundle = bundle.clone();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().context("an envelope has a payload")?;
    let statement = String::from_utf8(STANDARD.decode(payload)?)?;
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let lie = statement.replace(&hex(from), &hex(to));
    ensure!(lie != statement, "the statement names the digest: {statement}");
    bundle["dsseEnvelope"]["payload"] = json!(STANDARD.encode(lie));
    Ok(bundle.to_string().into_bytes())
}

/// A manifest for a bundle, and the list that names it.
fn referring(manifest: &Value, list: &Value, bundle: &[u8]) -> Result<(Value, Value)> {
    let (mut manifest, mut list) = (manifest.clone(), list.clone());
    let layer = &mut manifest["layers"][0];
    layer["digest"] = json!(digest_of(bundle));
    layer["size"] = json!(bundle.len());
    let bytes = manifest.to_string().into_bytes();
    let entry = list["manifests"][0].as_object_mut().context("a list names manifests")?;
    entry.insert("digest".into(), json!(digest_of(&bytes)));
    entry.insert("size".into(), json!(bytes.len()));
    Ok((manifest, list))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_signed_as_a_whole() -> Result<()> {
    let place = Place::new().await?;
    let key = place.cosign.key("key", Kind::P256).await?;
    for form in FORMS {
        let what = format!("{form:?}").to_lowercase();
        let image = place.push(&format!("one-{what}")).await?;
        let index = registry::push_index(
            &place.registry,
            REPOSITORY,
            &format!("many-{what}"),
            std::slice::from_ref(&image),
        )
        .await?;
        place.cosign.sign(&image.pinned, &key, form).await?;
        place.refused("a signature on what the index names", &index.tagged, &key, "is not signed").await?;
        place.cosign.sign(&index.tagged, &key, form).await?;
        place.accepted("a signature on the index", &index.tagged, &key).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_copied_with_its_signatures() -> Result<()> {
    let place = Place::new().await?;
    let key = place.cosign.key("key", Kind::P256).await?;
    let image = place.push("1").await?;
    place.cosign.sign(&image.pinned, &key, Form::Classic).await?;
    let copy = format!("{}/elsewhere/os:1", place.registry.address());
    place.cosign.copy(&image.pinned, &copy).await?;
    place.accepted("a copy", &copy, &key).await
}

/// Here `cosign verify` says yes and we say no: a statement by the same key that the image was scanned, and failed, would
/// otherwise be a signature on it.
#[tokio::test(flavor = "multi_thread")]
async fn an_attestation_is_no_signature() -> Result<()> {
    let place = Place::new().await?;
    let key = place.cosign.key("key", Kind::P256).await?;
    let image = place.push("1").await?;
    place.cosign.attest(&image.pinned, &key).await?;
    let (code, said) = place.agent(&image.pinned, &key).await?;
    ensure!(code == Some(3), "exit code {code:?}: {said}");
    place.cosign.sign(&image.pinned, &key, Form::Bundle).await?;
    place.accepted("a signature beside an attestation", &image.pinned, &key).await
}
