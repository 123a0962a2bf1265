//! The client.

use std::ops::Range;

use bytes::Bytes;
use oci_spec::{distribution::Reference, image::ImageManifest};

use crate::{
    Blob, Image, Layer, Part, Platform, RegistryError, RegistryOptions,
    client::Client,
    endpoint::Content,
    image::{self, Config},
    platform,
    wanted::Wanted,
};

/// The distribution specification asks registries to take manifests of 4 MiB, and none takes more.
pub(crate) const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Media types of configurations of images. Others are no reason to refuse one that can be read.
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// A configuration holds labels and a history line per layer.
const CONFIG_BYTES_MAX: usize = 8 << 20;

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
        let (reference, digest, manifest) = self.find(image, Wanted::Image).await?;
        let config = self.config(&reference, &manifest).await?;
        Ok(Resolved {
            image: format!("{}/{}@{digest}", reference.registry(), reference.repository()),
            digest,
            version: config.labels().remove(image::VERSION_LABEL),
        })
    }

    /// Fetches and checks everything of an image but its layers.
    pub async fn image(&self, image: &str, machine: &Platform) -> Result<Image, RegistryError> {
        let (reference, digest, manifest) = self.find(image, Wanted::For(machine)).await?;
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

    /// The bytes of a manifest or an index; those that the digest names, if the reference has one.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        self.client.fetch(reference, Content::Manifest(name), MANIFEST_BYTES_MAX).await
    }

    pub(crate) async fn config(
        &self,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<Config, RegistryError> {
        let config = manifest.content.config();
        let content = Content::Blob(image::checkable(reference, config.digest().as_ref())?);
        let bytes = self.client.fetch(reference, content, CONFIG_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let kind = config.media_type().to_string();
            let is_of_image = CONFIG_TYPES.contains(&kind.as_str());
            let of_another =
                if is_of_image { "" } else { &format!("it is of the type {kind}, and none of an image: ") };
            let detail = format!("{of_another}{error}");
            image::invalid(reference, "the configuration", &detail)
        })
    }
}

/// A manifest and its own digest.
pub(crate) struct Manifest {
    pub content: Box<ImageManifest>,
    pub digest: String,
}
