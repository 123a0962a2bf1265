//! The client.

use std::path::PathBuf;

use bytes::Bytes;
use oci_client::{Reference, manifest::OciImageManifest};

use crate::{
    Blob, Image, Layer, Platform, RegistryError,
    clients::Clients,
    digest,
    image::{self, Config, Document},
    platform,
};

/// The distribution specification asks registries to take manifests of 4 MiB, and none takes more.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// A configuration holds labels and a history line per layer.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// An index may name indexes; more than this is a circle or a joke.
const INDEX_DEPTH_MAX: u32 = 3;

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// Docker configuration (`config.json`) with credentials; a file that is not there has none.
    pub docker_config: Option<PathBuf>,
}

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
    clients: Clients,
}

impl Registry {
    /// Makes the client. Fails when there is nothing to trust.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self { clients: Clients::new(options)? })
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
        Blob::new(&self.clients, &image.reference, &layer.digest, layer.size)
    }

    /// The manifest that `image` names, for one machine or for any; and the digest of what it names.
    async fn find(
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

    async fn manifest(&self, reference: &Reference) -> Result<Bytes, RegistryError> {
        let bytes = self.clients.manifest(reference).await?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(image::invalid(reference, "the manifest", "it is larger than 4 MiB"));
        }
        if let Some(digest) = reference.digest() {
            digest::check(&format!("the manifest of {}", reference.whole()), digest, &bytes)?;
        }
        Ok(bytes)
    }

    async fn config(&self, reference: &Reference, manifest: &Manifest) -> Result<Config, RegistryError> {
        let descriptor = &manifest.content.config;
        let invalid = |detail: &str| image::invalid(reference, "the configuration", detail);
        let size = image::size(descriptor).filter(|size| *size <= CONFIG_BYTES_MAX);
        let size = size.ok_or_else(|| invalid("it has no size up to 8 MiB"))?;
        let digest = image::checkable(reference, &descriptor.digest)?;
        let mut blob = Blob::new(&self.clients, reference, digest, size);
        let mut bytes = Vec::new();
        while let Some(chunk) = blob.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))
    }
}

/// A manifest and its own digest.
struct Manifest {
    content: Box<OciImageManifest>,
    digest: String,
}
