//! What a manifest and a configuration say, with limits.

use std::collections::BTreeMap;

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, ImageIndex, ImageManifest},
};
use serde::Deserialize;

use crate::{Platform, RegistryError, digest};

pub(crate) const VERSION_LABEL: &str = "org.opencontainers.image.version";
/// As many as an overlay file system could stack, which is why no builder makes more.
const LAYERS_MAX: usize = 127;
/// Larger than any disk's slot.
const LAYER_BYTES_MAX: u64 = 64 << 30;
/// Media types of layers that are in the registry itself, as tar, plain or compressed.
const LAYER_TYPES: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// An image, all of it but its layers' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub(crate) reference: Reference,
    /// Digest of what the reference names, an index or a manifest.
    pub digest: String,
    /// Digest of the manifest for this machine.
    pub manifest_digest: String,
    /// Labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// The layers, base first.
    pub layers: Vec<Layer>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:…` of the bytes that the registry has.
    pub digest: String,
    /// How many there are.
    pub size: u64,
    /// `sha256:…` of the tar stream in them.
    pub diff_id: String,
    /// The annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
}

impl Image {
    /// The version that the image gives itself in the label `org.opencontainers.image.version`.
    pub fn version(&self) -> Option<&str> {
        self.labels.get(VERSION_LABEL).map(String::as_str).filter(|version| !version.is_empty())
    }

    /// Bytes of all layers, as the registry has them.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

pub(crate) enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

/// What we use of an image's configuration. The library's type has no variant, and refuses a date that it cannot read.
#[derive(Deserialize)]
pub(crate) struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default, rename = "config")]
    run: Option<RunConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RunConfig {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Config {
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.run.as_ref().and_then(|run| run.labels.clone()).unwrap_or_default()
    }
}

pub(crate) fn parse_reference(image: &str) -> Result<Reference, RegistryError> {
    let reference: Reference =
        image.parse().map_err(|source| RegistryError::Reference { image: image.to_owned(), source })?;
    match reference.digest() {
        Some(digest) if !digest::is_sha256(digest) => {
            Err(RegistryError::DigestAlgorithm { image: image.to_owned(), digest: digest.to_owned() })
        }
        _ => Ok(reference),
    }
}

pub(crate) fn parse_manifest(reference: &Reference, bytes: &[u8]) -> Result<Document, RegistryError> {
    /// An index has `manifests`, a manifest has `layers`; the media type may be absent, and must not decide alone.
    #[derive(Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let wrong = |error: serde_json::Error| invalid(reference, "the manifest", &error.to_string());
    let shape: Shape = serde_json::from_slice(bytes).map_err(wrong)?;
    match (shape.manifests.is_some(), shape.layers.is_some()) {
        (true, false) => Ok(Document::Index(serde_json::from_slice(bytes).map_err(wrong)?)),
        (false, true) => Ok(Document::Manifest(serde_json::from_slice(bytes).map_err(wrong)?)),
        _ => {
            Err(invalid(reference, "the manifest", "it is neither an image's manifest nor an index of such"))
        }
    }
}

pub(crate) fn layers(
    reference: &Reference,
    manifest: &ImageManifest,
    config: &Config,
) -> Result<Vec<Layer>, RegistryError> {
    let (layers, diff_ids) = (manifest.layers(), &config.rootfs.diff_ids);
    let wrong = |detail: &str| Err(invalid(reference, "the manifest", detail));
    if layers.is_empty() {
        return wrong("it has no layers");
    }
    if layers.len() > LAYERS_MAX {
        return wrong(&format!("it has {} layers, and {LAYERS_MAX} are the limit", layers.len()));
    }
    if layers.len() != diff_ids.len() {
        return wrong(&format!("it has {} layers and {} diff IDs", layers.len(), diff_ids.len()));
    }
    layers.iter().zip(diff_ids).map(|(layer, diff_id)| self::layer(reference, layer, diff_id)).collect()
}

fn layer(reference: &Reference, layer: &Descriptor, diff_id: &str) -> Result<Layer, RegistryError> {
    let digest = checkable(reference, layer.digest().as_ref())?.to_owned();
    let elsewhere = layer.urls().as_ref().is_some_and(|urls| !urls.is_empty());
    let media_type = layer.media_type().to_string();
    if elsewhere || !LAYER_TYPES.contains(&media_type.as_str()) {
        return Err(RegistryError::UnsupportedLayer { image: reference.whole(), digest, media_type });
    }
    let size = layer.size();
    if size > LAYER_BYTES_MAX {
        return Err(invalid(reference, "the manifest", &format!("layer {digest} has no size up to 64 GiB")));
    }
    if !digest::is_sha256(diff_id) {
        return Err(invalid(reference, "the configuration", &format!("{diff_id:?} is not a sha256 diff ID")));
    }
    let annotations = layer.annotations().clone().unwrap_or_default().into_iter().collect();
    Ok(Layer { digest, size, diff_id: diff_id.to_owned(), annotations })
}

/// A digest that can be checked.
pub(crate) fn checkable<'a>(reference: &Reference, digest: &'a str) -> Result<&'a str, RegistryError> {
    if digest::is_sha256(digest) {
        return Ok(digest);
    }
    Err(RegistryError::DigestAlgorithm { image: reference.whole(), digest: digest.to_owned() })
}

pub(crate) fn invalid(reference: &Reference, what: &'static str, detail: &str) -> RegistryError {
    RegistryError::InvalidManifest { image: reference.whole(), what, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(layers: &[(&str, i64)], diff_ids: usize, extra: &str) -> Result<Vec<Layer>, RegistryError> {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layers: Vec<String> = layers
            .iter()
            .map(|(kind, size)| {
                format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}{extra}}}"#)
            })
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{digest}","size":1}},"layers":[{}]}}"#,
            layers.join(",")
        );
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": vec![digest.clone(); diff_ids] }
        });
        let reference = parse_reference("r.example/os:1").unwrap();
        let Document::Manifest(manifest) = parse_manifest(&reference, manifest.as_bytes())? else {
            panic!("it has layers")
        };
        super::layers(&reference, &manifest, &serde_json::from_value(config).unwrap())
    }

    #[test]
    fn all_kinds_of_layers_are_taken() {
        assert_eq!(parsed(&LAYER_TYPES.map(|kind| (kind, 7)), 6, "").unwrap().len(), 6);
    }

    #[test]
    fn what_is_refused_and_why() {
        let tar = LAYER_TYPES[0];
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let apart = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        for (error, reason, word) in [
            (parsed(&[(foreign, 1)], 1, ""), "UnsupportedLayer", foreign),
            (parsed(&[(apart, 1)], 1, ""), "UnsupportedLayer", apart),
            (parsed(&[(tar, 1)], 1, r#","urls":["http://169.254.169.254/"]"#), "UnsupportedLayer", tar),
            (parsed(&[(tar, 1); 128], 128, ""), "InvalidManifest", "128 layers"),
            (parsed(&[(tar, 1)], 2, ""), "InvalidManifest", "1 layers and 2 diff IDs"),
            (parsed(&[], 0, ""), "InvalidManifest", "no layers"),
            (parsed(&[(tar, (64 << 30) + 1)], 1, ""), "InvalidManifest", "64 GiB"),
            (parsed(&[(tar, -1)], 1, ""), "InvalidManifest", "-1"),
        ] {
            let error = error.unwrap_err();
            assert_eq!(error.reason(), reason, "{error}");
            assert!(error.to_string().contains(word) && !error.retryable(), "{error}");
        }
    }

    #[test]
    fn references_that_cannot_be_used() {
        for image in ["", "r.example/UPPER", "r.example/os@sha512:00", "r.example/os:tag with space"] {
            assert_eq!(parse_reference(image).unwrap_err().reason(), "InvalidReference", "{image}");
        }
    }
}
