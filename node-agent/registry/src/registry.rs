//! The client.

use std::path::PathBuf;

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest},
};

use crate::{
    Blob, Image, Layer, Platform, RegistryError, digest,
    image::{self, Document},
    transport::{Request, Transport},
};

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The distribution specification asks registries to take manifests of 4 MiB, and none takes more.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
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
    transport: Transport,
}

impl Registry {
    /// Makes the client. Fails when there is nothing to trust.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self { transport: Transport::new(options)? })
    }

    /// Finds out what a tag names now, or checks that a digest is there.
    pub async fn resolve(&self, image: &str) -> Result<Resolved, RegistryError> {
        let (reference, digest, manifest) = self.find(image, None).await?;
        let config = self.config(&reference, &manifest).await?;
        Ok(Resolved {
            image: format!("{}/{}@{digest}", reference.registry(), reference.repository()),
            digest,
            version: image::labels(&config).remove(image::VERSION_LABEL),
        })
    }

    /// Fetches and checks everything of an image but its layers.
    pub async fn image(&self, image: &str, machine: &Platform) -> Result<Image, RegistryError> {
        let (reference, digest, manifest) = self.find(image, Some(machine)).await?;
        let config = self.config(&reference, &manifest).await?;
        let found = image::platform_of(&config);
        if found.fits(machine) == 0 {
            return Err(image::wrong_architecture(&reference, &found.to_string(), machine));
        }
        let layers = image::layers(&reference, &manifest.content, &config)?;
        Ok(Image {
            labels: image::labels(&config),
            manifest_digest: manifest.digest,
            layers,
            reference,
            digest,
        })
    }

    /// Begins to fetch a layer.
    pub fn layer<'a>(&'a self, image: &'a Image, layer: &'a Layer) -> Blob<'a> {
        Blob::new(&self.transport, &image.reference, &layer.digest, layer.size)
    }

    /// The manifest that `image` names, for one machine or for any; and the digest of what it names.
    async fn find(
        &self,
        image: &str,
        machine: Option<&Platform>,
    ) -> Result<(Reference, String, Manifest), RegistryError> {
        let reference = image::parse_reference(image)?;
        let mut wanted = match reference.digest() {
            Some(digest) => digest.to_owned(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let mut named = None;
        for _ in 0..=INDEX_DEPTH_MAX {
            let bytes = self.manifest(&reference, &wanted).await?;
            let digest = digest::of(&bytes);
            let named: &String = named.get_or_insert_with(|| digest.clone());
            match image::parse_manifest(&reference, &bytes)? {
                Document::Manifest(content) => {
                    return Ok((reference, named.clone(), Manifest { content: *content, digest }));
                }
                Document::Index(index) => wanted = choose(&reference, &index, machine)?,
            }
        }
        Err(image::invalid(&reference, "the index", "it names indexes that name indexes"))
    }

    async fn manifest(&self, reference: &Reference, wanted: &str) -> Result<Vec<u8>, RegistryError> {
        let path = format!("manifests/{wanted}");
        let request = Request { reference, path, accept: MANIFEST_TYPES, from: None };
        let mut response = self.transport.get(&request).await?;
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|source| self.transport.unreachable(reference, source))? else {
                break;
            };
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MANIFEST_BYTES_MAX {
                return Err(image::invalid(reference, "the manifest", "it is larger than 4 MiB"));
            }
        }
        if digest::is_sha256(wanted) {
            digest::check(&format!("the manifest of {}", reference.whole()), wanted, &bytes)?;
        }
        Ok(bytes)
    }

    async fn config(
        &self,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<ImageConfiguration, RegistryError> {
        let descriptor = manifest.content.config();
        let invalid = |detail: &str| image::invalid(reference, "the configuration", detail);
        if descriptor.size() > CONFIG_BYTES_MAX {
            return Err(invalid("it is larger than 8 MiB"));
        }
        let digest = image::digest_of(reference, descriptor)?;
        let mut blob = Blob::new(&self.transport, reference, &digest, descriptor.size());
        let mut bytes = Vec::new();
        while let Some(chunk) = blob.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))
    }
}

/// A manifest and its own digest.
struct Manifest {
    content: ImageManifest,
    digest: String,
}

/// The digest of the index's best entry for a machine, or of its first for any.
fn choose(
    reference: &Reference,
    index: &ImageIndex,
    machine: Option<&Platform>,
) -> Result<String, RegistryError> {
    let platforms: Vec<(Platform, &Descriptor)> = index
        .manifests()
        .iter()
        .filter_map(|entry| Some((image::platform_of_entry(entry)?, entry)))
        .collect();
    let Some(machine) = machine else {
        let first = platforms.first().map(|(_, entry)| *entry).or(index.manifests().first());
        let first = first.ok_or_else(|| image::invalid(reference, "the index", "it is empty"))?;
        return image::digest_of(reference, first);
    };
    let mut best: Option<(u8, &Descriptor)> = None;
    for (platform, entry) in &platforms {
        let fits = platform.fits(machine);
        if fits > best.map_or(0, |(fits, _)| fits) {
            best = Some((fits, entry));
        }
    }
    let Some((_, entry)) = best else {
        let found: Vec<String> = platforms.iter().map(|(platform, _)| platform.to_string()).collect();
        let found = if found.is_empty() { "no platform".to_owned() } else { found.join(", ") };
        return Err(image::wrong_architecture(reference, &found, machine));
    };
    image::digest_of(reference, entry)
}
