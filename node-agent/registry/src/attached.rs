//! What lies beside an image: documents by their reference, small blobs, and what refers to a digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci_spec::distribution::Reference;
use serde::Deserialize;

use crate::{Registry, RegistryError, digest, endpoint::Content, image, wanted::Wanted};

/// Note on a layer that is a file: its name.
const TITLE: &str = "org.opencontainers.image.title";

/// A manifest or an index, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// Its bytes, at most 4 MiB.
    pub bytes: Bytes,
    /// What it says that it is, such as `application/vnd.oci.image.manifest.v1+json`; empty if it does not say.
    pub media_type: String,
    /// `sha256:…` of its bytes; what the reference says, if it says one.
    pub digest: String,
}

/// A manifest that names another one as its subject: an entry of the distribution specification's list of referrers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Media type of the manifest.
    pub media_type: String,
    /// `sha256:…` of the manifest. Nobody has checked yet that it is there, nor what its subject is.
    pub digest: String,
    /// Bytes of the manifest.
    pub size: u64,
    /// What the manifest is for, such as `application/vnd.dev.sigstore.bundle.v0.3+json`.
    #[serde(default)]
    pub artifact_type: String,
    /// Notes on the entry, not covered by the manifest's digest.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An artifact, or an image whose layers are wanted as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// `REGISTRY/REPOSITORY@sha256:…` of what the reference names: what a signature is on.
    pub image: String,
    /// `REGISTRY/REPOSITORY`.
    pub repository: String,
    /// Its layers, base first.
    pub layers: Vec<ArtifactLayer>,
}

/// A layer of an artifact, of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactLayer {
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// The name of the file that it is (annotation `org.opencontainers.image.title`), if it has one.
    pub title: Option<String>,
}

impl Registry {
    /// The artifact that `image` names; of an index, any that is for a machine.
    pub async fn artifact(&self, image: &str) -> Result<Artifact, RegistryError> {
        let (reference, digest, manifest) = self.find(image, Wanted::Any).await?;
        let mut layers = Vec::new();
        for layer in manifest.content.layers() {
            let digest = image::checkable(&reference, layer.digest().as_ref())?.to_owned();
            let title = layer.annotations().as_ref().and_then(|notes| notes.get(TITLE).cloned());
            layers.push(ArtifactLayer {
                digest,
                size: layer.size(),
                media_type: layer.media_type().to_string(),
                title,
            });
        }
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        Ok(Artifact { image: format!("{repository}@{digest}"), repository, layers })
    }

    /// The manifest or index that `image` names by a tag or by a digest, which is checked.
    pub async fn manifest_bytes(&self, image: &str) -> Result<RawManifest, RegistryError> {
        /// The one field that manifests and indexes of every kind may have.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: String,
        }
        let reference = image::parse_reference(image)?;
        let bytes = self.manifest(&reference).await?;
        let kind: Kind = serde_json::from_slice(&bytes)
            .map_err(|error| image::invalid(&reference, "the manifest", &error.to_string()))?;
        Ok(RawManifest { digest: digest::of(&bytes), media_type: kind.media_type, bytes })
    }

    /// The blob `digest` of `repository` (`REGISTRY/REPOSITORY`), checked. Not more than `limit` bytes are read.
    pub async fn small_blob(
        &self,
        repository: &str,
        digest: &str,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let reference = named(repository, digest)?;
        self.client.fetch(&reference, Content::Blob(digest), limit).await
    }

    /// The manifests in `repository` whose subject is `digest`, of one artifact type or of all. None is no error. Asks
    /// the registry's list of referrers, and where there is no such list, the tag `sha256-…` that stands for it.
    pub async fn referrers(
        &self,
        repository: &str,
        digest: &str,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Referrer>,
        }
        let reference = named(repository, digest)?;
        let pages = match self.client.pages(&reference, Content::Referrers(digest)).await {
            Err(error) if error.is_not_found() => {
                self.manifest(&tagged(&reference, &digest.replace(':', "-"))).await.map(|index| vec![index])
            }
            other => other,
        };
        let pages = match pages {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let invalid = |detail: &str| image::invalid(&reference, "the list of referrers", detail);
        let mut found = Vec::new();
        for page in pages {
            let index: Index = serde_json::from_slice(&page).map_err(|error| invalid(&error.to_string()))?;
            found.extend(index.manifests);
        }
        // A registry need not know how to choose, and the tag never does.
        found.retain(|one| artifact_type.is_none_or(|wanted| one.artifact_type == wanted));
        for one in &found {
            image::checkable(&reference, &one.digest)?;
        }
        Ok(found)
    }

    /// All tags of `repository` (`REGISTRY/REPOSITORY`), in the registry's order.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct List {
            /// Some registries have `null` for none.
            tags: Option<Vec<String>>,
        }
        let reference = image::parse_reference(repository)?;
        let mut found = Vec::new();
        for page in self.client.pages(&reference, Content::Tags).await? {
            let list: List = serde_json::from_slice(&page)
                .map_err(|error| image::invalid(&reference, "the list of tags", &error.to_string()))?;
            found.extend(list.tags.unwrap_or_default());
        }
        Ok(found)
    }
}

fn named(repository: &str, digest: &str) -> Result<Reference, RegistryError> {
    image::parse_reference(&format!("{repository}@{digest}"))
}

fn tagged(reference: &Reference, tag: &str) -> Reference {
    Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag.to_owned())
}
