//! The client.

use std::ops::Range;

use bytes::Bytes;
use oci_spec::{distribution::Reference, image::ImageManifest};

use crate::{
    Blob, Image, Layer, Part, Platform, RegistryError, RegistryOptions,
    client::Client,
    digest,
    endpoint::Content,
    image::{self, Config, Document},
    platform,
};

/// The distribution specification asks registries to take manifests of 4 MiB, and none takes more.
pub(crate) const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// A configuration holds labels and a history line per layer.
const CONFIG_BYTES_MAX: usize = 8 << 20;
/// An index may name indexes; more than this is a circle or a joke.
const INDEX_DEPTH_MAX: u32 = 3;

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `REGISTRY/REPOSITORY@sha256:…`, without a tag.
    pub image: String,
    /// Digest of the index or the manifest, `sha256:…`.
    pub digest: String,
    /// Label `org.opencontainers.image.version` of the image's configuration.
    pub version: Option<String>,
}

/// A client of any registry.
pub struct Registry {
    pub(crate) client: Client,
}

impl Registry {
    /// Makes the client. Asks nobody yet.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self { client: Client::new(options)? })
    }

    /// Finds out what a tag names now, or checks that a digest is there.
    pub async fn resolve(&self, image: &str) -> Result<Resolved, RegistryError> {
        let (reference, digest, manifest) = self.find(image, None).await?;
        let config = self.config(&reference, &manifest).await?;
        Ok(Resolved {
            image: format!("{}/{}@{digest}", reference.registry(), reference.repository()),
            digest,
            version: config.labels().remove(image::VERSION_LABEL),
        })
    }

    /// Fetches and checks everything of an image but its layers.
    pub async fn image(&self, image: &str, machine: &Platform) -> Result<Image, RegistryError> {
        let (reference, digest, manifest) = self.find(image, Some(machine)).await?;
        let config = self.config(&reference, &manifest).await?;
        if config.platform.fits(machine) == 0 {
            return Err(platform::wrong_architecture(&reference, &config.platform.to_string(), machine));
        }
        let layers = image::layers(&reference, &manifest.content, &config)?;
        Ok(Image { labels: config.labels(), manifest_digest: manifest.digest, layers, reference, digest })
    }

    /// Begins to fetch a layer.
    pub fn layer<'a>(&'a self, image: &'a Image, layer: &'a Layer) -> Blob<'a> {
        Blob::new(&self.client, &image.reference, &layer.digest, layer.size)
    }

    /// Begins to fetch a part of a layer: bytes of the blob, of which there are some, all inside of it.
    pub fn part<'a>(&'a self, image: &'a Image, layer: &'a Layer, part: Range<u64>) -> Part<'a> {
        Part::new(&self.client, &image.reference, (&layer.digest, layer.size), part)
    }

    /// The manifest that `image` names, for one machine or for any; and the digest of what it names.
    pub(crate) async fn find(
        &self,
        image: &str,
        machine: Option<&Platform>,
    ) -> Result<(Reference, String, Manifest), RegistryError> {
        let reference = image::parse_reference(image)?;
        let mut wanted = reference.clone();
        let mut named = None;
        for _ in 0..=INDEX_DEPTH_MAX {
            let bytes = self.manifest(&wanted).await?;
            let digest = digest::of(&bytes);
            let named: &String = named.get_or_insert_with(|| digest.clone());
            match image::parse_manifest(&reference, &bytes)? {
                Document::Manifest(content) => {
                    return Ok((reference, named.clone(), Manifest { content, digest }));
                }
                Document::Index(index) => {
                    wanted = wanted.clone_with_digest(platform::choose(&reference, &index, machine)?);
                }
            }
        }
        Err(image::invalid(&reference, "the index", "it names indexes that name indexes"))
    }

    /// The bytes of a manifest or an index; those that the digest names, if the reference has one.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        self.client.fetch(reference, Content::Manifest(name), MANIFEST_BYTES_MAX).await
    }

    async fn config(&self, reference: &Reference, manifest: &Manifest) -> Result<Config, RegistryError> {
        let digest = manifest.content.config().digest().as_ref();
        let content = Content::Blob(image::checkable(reference, digest)?);
        let bytes = self.client.fetch(reference, content, CONFIG_BYTES_MAX).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| image::invalid(reference, "the configuration", &error.to_string()))
    }
}

/// A manifest and its own digest.
pub(crate) struct Manifest {
    pub content: Box<ImageManifest>,
    digest: String,
}
