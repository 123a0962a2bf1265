//! Images into a registry: layers are streamed, and what is there already is not sent again.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest,
    secrets::RegistryAuth,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Registry,
    image::{Image, Source, digest_of},
};

/// Bytes of a layer that are in memory at once, in each of a few pieces.
const PIECE: usize = 1 << 20;

/// An image that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `ADDRESS/REPOSITORY:TAG`.
    pub tagged: String,
    /// `ADDRESS/REPOSITORY@sha256:…`.
    pub pinned: String,
    /// `sha256:…`.
    pub digest: String,
    architecture: String,
    media_type: &'static str,
    size: usize,
}

/// Pushes an image as `REPOSITORY:TAG`.
pub async fn push(registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<Pushed> {
    let target = Target::open(registry, repository, tag).await?;
    for layer in &image.layers {
        target.layer(&layer.digest, layer.length, &layer.source).await?;
    }
    let config = image.config();
    let config_length = config.len() as u64;
    target.layer(&digest_of(&config), config_length, &Source::Bytes(config.clone())).await?;
    let (media_type, document) = image.manifest(&config);
    target.manifest(media_type, document, &image.architecture).await
}

/// Pushes an index as `REPOSITORY:TAG` of images that are in the same repository, one for each architecture.
pub async fn push_index(
    registry: &Registry,
    repository: &str,
    tag: &str,
    images: &[Pushed],
) -> Result<Pushed> {
    let target = Target::open(registry, repository, tag).await?;
    let manifests: Vec<_> = images
        .iter()
        .map(|image| {
            json!({
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": image.size,
                "platform": { "os": "linux", "architecture": image.architecture },
            })
        })
        .collect();
    let media_type = manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
    let document = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    target.manifest(media_type, document.to_string().into_bytes(), "").await
}

/// Pushes blobs, and a document that names them, as `REPOSITORY:TAG`.
pub async fn push_document(
    registry: &Registry,
    repository: &str,
    tag: &str,
    blobs: &[Vec<u8>],
    document: &Value,
) -> Result<()> {
    let target = Target::open(registry, repository, tag).await?;
    for blob in blobs {
        target.layer(&digest_of(blob), blob.len() as u64, &Source::Bytes(blob.clone())).await?;
    }
    let media_type = document["mediaType"].as_str().context("a document says what it is")?;
    let media_type = HeaderValue::from_str(media_type).context("a media type is a header's value")?;
    let bytes = document.to_string().into_bytes();
    target
        .client
        .push_manifest_raw(&target.reference, bytes, media_type)
        .await
        .with_context(|| format!("push {}", target.reference))?;
    Ok(())
}

fn trusted(authority: &str) -> Certificate {
    Certificate { encoding: CertificateEncoding::Pem, data: authority.as_bytes().to_vec() }
}

struct Target {
    client: Client,
    reference: Reference,
    repository: String,
}

impl Target {
    async fn open(registry: &Registry, repository: &str, tag: &str) -> Result<Self> {
        let repository = format!("{}/{repository}", registry.address());
        let reference: Reference = format!("{repository}:{tag}").parse().context("name the image")?;
        let authority = registry.options.certificate.as_ref().map(|certificate| &certificate.authority);
        let config = ClientConfig {
            protocol: authority.map_or(ClientProtocol::Http, |_| ClientProtocol::Https),
            extra_root_certificates: authority.into_iter().map(|authority| trusted(authority)).collect(),
            use_monolithic_push: true,
            ..Default::default()
        };
        let client = Client::try_from(config).context("make a registry client")?;
        let auth = registry.credentials().map_or(RegistryAuth::Anonymous, |(name, password)| {
            RegistryAuth::Basic(name.to_owned(), password.to_owned())
        });
        client.auth(&reference, &auth, RegistryOperation::Push).await.context("log in to the registry")?;
        Ok(Self { client, reference, repository })
    }

    async fn layer(&self, digest: &str, length: u64, source: &Source) -> Result<()> {
        let failed = || format!("push {digest} to {}", self.repository);
        if self.client.blob_exists(&self.reference, digest).await.with_context(failed)? {
            return Ok(());
        }
        let pieces = pieces(source.clone());
        let stream = stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
        self.client
            .push_blob_stream(&self.reference, stream, digest, Some(length))
            .await
            .map(|_| ())
            .with_context(failed)
    }

    async fn manifest(
        self,
        media_type: &'static str,
        document: Vec<u8>,
        architecture: &str,
    ) -> Result<Pushed> {
        let (digest, size) = (digest_of(&document), document.len());
        self.client
            .push_manifest_raw(&self.reference, document, HeaderValue::from_static(media_type))
            .await
            .with_context(|| format!("push the manifest of {}", self.reference))?;
        Ok(Pushed {
            tagged: self.reference.to_string(),
            pinned: format!("{}@{digest}", self.repository),
            digest,
            architecture: architecture.to_owned(),
            media_type,
            size,
        })
    }
}

/// Reads on a thread of its own; what is not taken yet is bounded.
fn pieces(source: Source) -> mpsc::Receiver<Result<Bytes, OciDistributionError>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let mut reader = match source.open() {
            Ok(reader) => reader,
            Err(error) => {
                // Who reads may have given up.
                let _ = sender.blocking_send(Err(error.into()));
                return;
            }
        };
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let outcome = match reader.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
                Ok(0) => return,
                Ok(_) => Ok(Bytes::from(piece)),
                Err(error) => Err(error.into()),
            };
            let failed = outcome.is_err();
            if sender.blocking_send(outcome).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
