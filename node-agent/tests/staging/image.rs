//! Images made by hand, in every form that registries hold.

use std::{collections::BTreeMap, io::Write as _};

use evenkeel_node_agent_core::digest::hex;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

pub const KERNEL: &str = "usr/lib/modules/6.1.0-1/vmlinuz";
pub const INITRD: &str = "usr/lib/modules/6.1.0-1/initramfs.img";
pub const LOADER: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
pub const OS_RELEASE: &str = "usr/lib/os-release";

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compressed {
    Not,
    Gzip,
    /// As parallel and resumable gzip programs write it.
    GzipMembers,
    /// As zstd:chunked writes it.
    ZstdFrames,
}

/// Whose media types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dialect {
    Oci,
    Docker,
}

/// Bytes with a digest.
#[derive(Clone, Debug)]
pub struct Blob {
    pub media_type: String,
    pub digest: String,
    pub bytes: Vec<u8>,
    /// Of its descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// An image as a registry holds it.
#[derive(Clone, Debug)]
pub struct Image {
    pub config: Blob,
    pub layers: Vec<Blob>,
    pub manifest: Blob,
}

/// An image to be made.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub layers: Vec<Vec<u8>>,
    pub compressed: Compressed,
    pub dialect: Dialect,
    pub architecture: &'static str,
    pub labels: Value,
    pub diff_ids: Option<Vec<String>>,
}

/// A tar with files of the given content, in the given order.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The same as Go's `archive/tar` writes it, but for the files' owner by name, which it has only when it is told to.
pub fn ustar(files: &[(&str, &[u8])], owner: &str) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_username(owner).unwrap();
        header.set_cksum();
        // Most programs end its digits in another way than this library.
        let sum = format!("{:06o}\0 ", header.cksum().unwrap());
        header.as_mut_bytes()[148..156].copy_from_slice(sum.as_bytes());
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl Default for Recipe {
    fn default() -> Self {
        let kernel = noise(300_000, 1);
        let initrd = noise(700_001, 2);
        let base =
            tar(&[(LOADER, b"MZ"), (OS_RELEASE, b"ID=x\nVERSION_ID=\"7.1\"\n"), ("etc/base", b"base")]);
        let top = tar(&[(KERNEL, &kernel), (INITRD, &initrd), ("etc/top", b"top")]);
        Self {
            layers: vec![base, top],
            compressed: Compressed::Gzip,
            dialect: Dialect::Oci,
            architecture: "amd64",
            labels: json!({}),
            diff_ids: None,
        }
    }
}

impl Recipe {
    /// An image that could boot, with one more layer.
    pub fn with(layer: Vec<u8>) -> Self {
        let mut recipe = Self::default();
        recipe.layers.push(layer);
        recipe
    }

    pub fn build(&self) -> Image {
        let layer = |tar: &Vec<u8>| Blob::new(self.layer_type(), compress(tar, self.compressed));
        self.with_blobs(self.layers.iter().map(layer).collect())
    }

    /// The image with these blobs for its layers.
    pub fn with_blobs(&self, layers: Vec<Blob>) -> Image {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids.clone().unwrap_or(diff_ids) },
        });
        let config = Blob::new(self.config_type(), config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.manifest_type(),
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(self.manifest_type(), manifest.to_string().into_bytes());
        Image { config, layers, manifest }
    }

    fn manifest_type(&self) -> &'static str {
        match self.dialect {
            Dialect::Oci => "application/vnd.oci.image.manifest.v1+json",
            Dialect::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config_type(&self) -> &'static str {
        match self.dialect {
            Dialect::Oci => "application/vnd.oci.image.config.v1+json",
            Dialect::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer_type(&self) -> &'static str {
        match (self.dialect, self.compressed) {
            (Dialect::Docker, Compressed::Not) => "application/vnd.docker.image.rootfs.diff.tar",
            (Dialect::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Dialect::Oci, Compressed::Not) => "application/vnd.oci.image.layer.v1.tar",
            (Dialect::Oci, Compressed::ZstdFrames) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Dialect::Oci, _) => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

impl Blob {
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        let digest = digest(&bytes);
        Self { media_type: media_type.to_owned(), digest, bytes, annotations: BTreeMap::new() }
    }

    pub fn descriptor(&self) -> Value {
        let (digest, size) = (&self.digest, self.bytes.len());
        let mut descriptor = json!({ "mediaType": self.media_type, "digest": digest, "size": size });
        if !self.annotations.is_empty() {
            descriptor["annotations"] = json!(self.annotations);
        }
        descriptor
    }
}

/// An index of images, each with its architecture; and an attestation, as builders add them.
pub fn index(entries: &[(&Image, &str)]) -> Blob {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let entry = |image: &Image, architecture: &str| {
        let mut entry = image.manifest.descriptor();
        entry["platform"] = json!({ "os": if architecture == "unknown" { "unknown" } else { "linux" },
            "architecture": architecture });
        entry
    };
    let mut manifests = vec![entry(entries[0].0, "unknown")];
    manifests.extend(entries.iter().map(|(image, architecture)| entry(image, architecture)));
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    Blob::new(media_type, index.to_string().into_bytes())
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn compress(layer: &[u8], how: Compressed) -> Vec<u8> {
    let gzip = |part: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    match how {
        Compressed::Not => layer.to_vec(),
        Compressed::Gzip => gzip(layer),
        Compressed::GzipMembers => layer.chunks(100_000).flat_map(gzip).collect(),
        Compressed::ZstdFrames => {
            layer.chunks(100_000).flat_map(|part| zstd::encode_all(part, 3).unwrap()).collect()
        }
    }
}
