//! An image before it is pushed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use oci_client::manifest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cache;

/// How a layer's archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Whose media types an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Flavour {
    #[default]
    Oci,
    Docker,
}

/// A layer: an archive as it is sent, and what is known of it.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(super) source: Source,
    pub(super) compression: Compression,
    /// Digest of what is sent, `sha256:…`.
    pub digest: String,
    /// Bytes that are sent.
    pub length: u64,
    /// Digest of the archive without compression, `sha256:…`.
    pub diff_id: String,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Source {
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(match self {
            Self::File(path) => Box::new(File::open(path)?),
            Self::Bytes(bytes) => Box::new(bytes.as_slice()),
        })
    }
}

impl Layer {
    /// A layer in a file that is compressed already. Reads the file twice.
    pub fn from_file(path: &Path, compression: Compression) -> Result<Self> {
        Self::look(Source::File(path.to_owned()), compression)
            .with_context(|| format!("read the layer {}", path.display()))
    }

    /// A layer in memory that is compressed already.
    pub fn from_bytes(bytes: Vec<u8>, compression: Compression) -> Result<Self> {
        Self::look(Source::Bytes(bytes), compression).context("read a layer")
    }

    /// A layer of a tar archive that is compressed here.
    pub fn from_tar(tar: &[u8], compression: Compression) -> Result<Self> {
        let bytes = match compression {
            Compression::None => tar.to_vec(),
            Compression::Zstd => zstd::encode_all(tar, 3).context("compress a layer")?,
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).and_then(|()| encoder.finish()).context("compress a layer")?
            }
        };
        Self::from_bytes(bytes, compression)
    }

    fn look(source: Source, compression: Compression) -> Result<Self> {
        let mut sent = Hash::default();
        io::copy(&mut source.open()?, &mut sent)?;
        let mut archive = Hash::default();
        match compression {
            Compression::None => archive.clone_from(&sent),
            Compression::Gzip => {
                let bytes = BufReader::with_capacity(1 << 20, source.open()?);
                io::copy(&mut flate2::bufread::MultiGzDecoder::new(bytes), &mut archive)?;
            }
            Compression::Zstd => {
                let bytes = BufReader::with_capacity(1 << 20, source.open()?);
                io::copy(&mut zstd::Decoder::with_buffer(bytes)?, &mut archive)?;
            }
        }
        let (digest, length) = (digest(&sent.hash), sent.length);
        let diff_id = self::digest(&archive.hash);
        Ok(Self { source, compression, digest, length, diff_id, annotations: BTreeMap::new() })
    }

    pub(super) fn descriptor(&self, flavour: Flavour) -> Value {
        let media_type = match (flavour, self.compression) {
            (Flavour::Oci, Compression::None) => manifest::IMAGE_LAYER_MEDIA_TYPE.to_owned(),
            (Flavour::Oci, Compression::Gzip) => manifest::IMAGE_LAYER_GZIP_MEDIA_TYPE.to_owned(),
            // Docker has no type of its own for zstd; its tools use OCI's.
            (_, Compression::Zstd) => format!("{}+zstd", manifest::IMAGE_LAYER_MEDIA_TYPE),
            (Flavour::Docker, Compression::None) => manifest::IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE.to_owned(),
            (Flavour::Docker, Compression::Gzip) => manifest::IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE.to_owned(),
        };
        let mut descriptor = json!({ "mediaType": media_type, "digest": self.digest, "size": self.length });
        if !self.annotations.is_empty() {
            descriptor["annotations"] = json!(self.annotations);
        }
        descriptor
    }
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// Layers, base first.
    pub layers: Vec<Layer>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Architecture in OCI's terms.
    pub architecture: String,
    /// Command that a container of it runs.
    pub entrypoint: Vec<String>,
    /// Whose media types.
    pub flavour: Flavour,
}

impl Image {
    /// An image for amd64 with OCI's media types.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self {
            layers,
            labels: BTreeMap::new(),
            architecture: "amd64".to_owned(),
            entrypoint: Vec::new(),
            flavour: Flavour::Oci,
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(super) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Labels": self.labels, "Entrypoint": self.entrypoint },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.to_string().into_bytes()
    }

    pub(super) fn manifest(&self, config: &[u8]) -> (&'static str, Vec<u8>) {
        let (media_type, config_type) = match self.flavour {
            Flavour::Oci => (manifest::OCI_IMAGE_MEDIA_TYPE, manifest::IMAGE_CONFIG_MEDIA_TYPE),
            Flavour::Docker => {
                (manifest::IMAGE_MANIFEST_MEDIA_TYPE, manifest::IMAGE_DOCKER_CONFIG_MEDIA_TYPE)
            }
        };
        let layers: Vec<Value> = self.layers.iter().map(|layer| layer.descriptor(self.flavour)).collect();
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": config_type, "digest": digest_of(config), "size": config.len() },
            "layers": layers,
        });
        (media_type, document.to_string().into_bytes())
    }
}

/// `sha256:…` of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    digest(&Sha256::new_with_prefix(bytes))
}

fn digest(hash: &Sha256) -> String {
    format!("sha256:{}", cache::hex(&hash.clone().finalize()))
}

#[derive(Clone, Default)]
struct Hash {
    hash: Sha256,
    length: u64,
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
