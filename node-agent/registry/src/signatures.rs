//! The signatures that lie beside an image, in both forms that `cosign` writes. They are fetched here, and judged in
//! `evenkeel-trust`.

use std::collections::BTreeMap;

use bytes::Bytes;
use evenkeel_trust::{BUNDLE_BYTES_MAX, Evidence, PAYLOAD_BYTES_MAX, Subject, bundle, simple_signing};
use serde::Deserialize;

use crate::{Image, Referrer, Registry, RegistryError, image};

/// Signatures of each form that are looked at. An image has a handful, and whoever may push could add any number.
const SIGNATURES_MAX: usize = 64;
/// Note on a bundle's manifest that says what the statement in it is.
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";

/// What we use of a signature's manifest.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Image {
    /// What a signature on this image is on: what its reference names, an index or a manifest.
    pub fn subject(&self) -> Subject {
        let name = format!("{}/{}", self.reference.registry(), self.reference.repository());
        format!("{name}@{}", self.digest).parse().expect("an image's digest was computed here")
    }
}

/// What a reference names by its digest; `None` if it names a tag.
pub fn subject(image: &str) -> Result<Option<Subject>, RegistryError> {
    let reference = image::parse_reference(image)?;
    let name = format!("{}/{}", reference.registry(), reference.repository());
    // A digest that is none was refused already.
    Ok(reference.digest().and_then(|digest| format!("{name}@{digest}").parse().ok()))
}

impl Registry {
    /// Everything beside an image that may be a signature on it. What is there and cannot be read is told of as such:
    /// it must not hide a signature that can. Fails only where asking again may help.
    pub async fn signatures(&self, subject: &Subject) -> Result<Vec<Evidence>, RegistryError> {
        let mut found = self.simple_signings(subject).await?;
        found.extend(self.bundles(subject).await?);
        Ok(found)
    }

    async fn simple_signings(&self, subject: &Subject) -> Result<Vec<Evidence>, RegistryError> {
        let name = format!("{}:{}", subject.repository(), simple_signing::tag(subject.hex()));
        let layers = match self.signature_layers(&name, &[simple_signing::MEDIA_TYPE]).await {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Ok(vec![unreadable(error)?]),
            Ok(layers) => layers,
        };
        let mut found = Vec::new();
        for Layer { digest, mut annotations, .. } in layers.into_iter().take(SIGNATURES_MAX) {
            let payload = self.small_blob(subject.repository(), &digest, PAYLOAD_BYTES_MAX).await;
            let signature = annotations.remove(simple_signing::SIGNATURE_ANNOTATION).unwrap_or_default();
            let signed = |payload: Bytes| Evidence::SimpleSigning { payload: payload.to_vec(), signature };
            found.push(payload.map(signed).or_else(unreadable)?);
        }
        Ok(found)
    }

    async fn bundles(&self, subject: &Subject) -> Result<Vec<Evidence>, RegistryError> {
        let repository = subject.repository();
        let mut referrers = match self.referrers(repository, &subject.digest(), None).await {
            Ok(referrers) => referrers,
            Err(error) => return Ok(vec![unreadable(error)?]),
        };
        referrers.retain(may_be_bundle);
        // Images gather attestations, such as of each night's scan: they must not push the signatures out.
        referrers.sort_by_key(|referrer| match referrer.annotations.get(PREDICATE_TYPE) {
            Some(predicate) if predicate == bundle::SIGN => 0,
            None => 1,
            Some(_) => 2,
        });
        let mut found = Vec::new();
        for referrer in referrers.into_iter().take(SIGNATURES_MAX) {
            let bundle = self.bundle(repository, &referrer.digest).await;
            found.extend(bundle.or_else(|error| unreadable(error).map(Some))?);
        }
        Ok(found)
    }

    /// The bundle of a manifest; `None` if it holds something else.
    async fn bundle(&self, repository: &str, digest: &str) -> Result<Option<Evidence>, RegistryError> {
        let name = format!("{repository}@{digest}");
        let layers = self.signature_layers(&name, &[bundle::MEDIA_TYPE, bundle::MEDIA_TYPE_BEFORE]).await?;
        // `cosign` writes one; whatever else is there is no signature of its making.
        let Some(layer) = layers.first() else { return Ok(None) };
        let bytes = self.small_blob(repository, &layer.digest, BUNDLE_BYTES_MAX).await?;
        Ok(Some(Evidence::Bundle(bytes.to_vec())))
    }

    /// The layers of a signature's manifest that are of one of these types.
    async fn signature_layers(&self, name: &str, types: &[&str]) -> Result<Vec<Layer>, RegistryError> {
        let manifest = self.manifest_bytes(name).await?;
        let mut manifest: Manifest =
            serde_json::from_slice(&manifest.bytes).map_err(|error| RegistryError::InvalidManifest {
                image: name.to_owned(),
                what: "the manifest",
                detail: error.to_string(),
            })?;
        manifest.layers.retain(|layer| types.contains(&layer.media_type.as_str()));
        Ok(manifest.layers)
    }
}

/// Whether a referrer may hold a bundle. What keeps the list where the registry has none may not know.
fn may_be_bundle(referrer: &Referrer) -> bool {
    let kind = referrer.artifact_type.as_str();
    kind.is_empty() || kind == bundle::MEDIA_TYPE || kind == bundle::MEDIA_TYPE_BEFORE
}

/// A signature that is there and is damaged, or the error again if the next attempt may bring it.
fn unreadable(error: RegistryError) -> Result<Evidence, RegistryError> {
    if error.retryable() { Err(error) } else { Ok(Evidence::Unreadable(error.to_string())) }
}
