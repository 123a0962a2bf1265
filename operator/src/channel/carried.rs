//! The list of versions in an artifact or an image: the file `channel.json`, as Elemental's channel images have it.

use std::io::{self, Read};

use bytes::Bytes;
use evenkeel_operator_core::channel::document::BYTES_MAX;
use evenkeel_registry::{Artifact, ArtifactLayer, Registry, RegistryError};
use flate2::read::MultiGzDecoder;

/// The file.
const NAME: &str = "channel.json";
/// Marks in a layer that what is below has no such file (OCI image specification, "Whiteouts").
const WHITEOUTS: [&str; 2] = [".wh.channel.json", ".wh..wh..opq"];
/// Media types of layers that can be searched.
const PLAIN: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
const GZIP: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];
/// A layer with the list alone has a few kilobytes, and one of a small system below it a few megabytes.
const LAYER_BYTES_MAX: u64 = 32 << 20;
/// The same, inflated.
const TAR_BYTES_MAX: u64 = 128 << 20;
/// Layers that are looked into, from the last one.
const LAYERS_MAX: usize = 8;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotCarried {
    /// What has to be asked for did not come.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is not there.
    #[error(
        "{image} carries no {NAME}: push it as a file of an artifact, or copy it to the root of an image"
    )]
    NoFile { image: String },
    /// A layer that cannot be read.
    #[error(
        "layer {digest} of {image} cannot be searched for {NAME} ({why}): put the file into the last layer, alone, plain \
         or compressed with gzip"
    )]
    Layer { image: String, digest: String, why: String },
}

/// What a layer says of the file.
enum Found {
    File(Vec<u8>),
    Removed,
    Nothing,
}

/// The bytes of the list, at most [`BYTES_MAX`].
pub(super) async fn list(registry: &Registry, artifact: &Artifact) -> Result<Bytes, NotCarried> {
    let titled = artifact.layers.iter().find(|layer| layer.title.as_deref() == Some(NAME));
    if let Some(layer) = titled {
        return Ok(registry.small_blob(&artifact.repository, &layer.digest, BYTES_MAX).await?);
    }
    for layer in artifact.layers.iter().rev().take(LAYERS_MAX) {
        match search(registry, artifact, layer).await? {
            Found::File(bytes) => return Ok(bytes.into()),
            Found::Removed => break,
            Found::Nothing => {}
        }
    }
    Err(NotCarried::NoFile { image: artifact.image.clone() })
}

async fn search(
    registry: &Registry,
    artifact: &Artifact,
    layer: &ArtifactLayer,
) -> Result<Found, NotCarried> {
    let unreadable =
        |why: String| NotCarried::Layer { image: artifact.image.clone(), digest: layer.digest.clone(), why };
    let kind = layer.media_type.as_str();
    let gzip = GZIP.contains(&kind);
    if !gzip && !PLAIN.contains(&kind) {
        return Err(unreadable(format!("its media type is {kind}")));
    }
    if layer.size > LAYER_BYTES_MAX {
        return Err(unreadable(format!("it has {} bytes", layer.size)));
    }
    let limit = usize::try_from(LAYER_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = registry.small_blob(&artifact.repository, &layer.digest, limit).await?;
    let found = tokio::task::spawn_blocking(move || {
        if gzip { in_tar(MultiGzDecoder::new(&bytes[..])) } else { in_tar(&bytes[..]) }
    });
    let found = found.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    found.map_err(|error| unreadable(error.to_string()))
}

fn in_tar(tar: impl Read) -> io::Result<Found> {
    let mut found = Found::Nothing;
    // A file that is cut off here ends too early, which is an error.
    for entry in tar::Archive::new(tar.take(TAR_BYTES_MAX)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let path = path.to_string_lossy();
        let name = path.trim_start_matches("./").trim_start_matches('/');
        if WHITEOUTS.contains(&name) {
            found = Found::Removed;
        }
        if name != NAME {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(io::Error::other(format!("{NAME} is not a file")));
        }
        if entry.size() > BYTES_MAX as u64 {
            return Err(io::Error::other(format!("{NAME} has {} bytes", entry.size())));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != entry.size() {
            return Err(io::Error::other(format!("{NAME} is cut off")));
        }
        return Ok(Found::File(bytes));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn the_file_is_found_at_the_root_alone() {
        let file = |tar: &[u8]| match in_tar(tar).unwrap() {
            Found::File(bytes) => Some(bytes),
            Found::Removed => Some(b"removed".to_vec()),
            Found::Nothing => None,
        };
        assert_eq!(file(&tar(&[("bin/sh", b"x"), ("./channel.json", b"[1]")])).as_deref(), Some(&b"[1]"[..]));
        assert_eq!(file(&tar(&[("channel.json", b"[2]")])).as_deref(), Some(&b"[2]"[..]));
        assert_eq!(file(&tar(&[("etc/channel.json", b"[1]")])), None);
        assert_eq!(file(&tar(&[(".wh.channel.json", b"")])).as_deref(), Some(&b"removed"[..]));
        assert_eq!(
            file(&tar(&[(".wh..wh..opq", b""), ("channel.json", b"[3]")])).as_deref(),
            Some(&b"[3]"[..])
        );
    }

    #[test]
    fn what_is_too_large_or_broken_is_not_read() {
        let large = tar(&[("channel.json", &vec![b' '; BYTES_MAX + 1])]);
        assert!(in_tar(&large[..]).is_err());
        let whole = tar(&[("channel.json", &[b' '; 3000])]);
        assert!(in_tar(&whole[..2000]).is_err());
        let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
        let mut header = tar::Header::new_gnu();
        header.set_path("big").unwrap();
        header.set_size(TAR_BYTES_MAX * 2);
        header.set_cksum();
        bomb.write_all(header.as_bytes()).unwrap();
        for _ in 0..=TAR_BYTES_MAX >> 20 {
            bomb.write_all(&vec![0xff; 1 << 20]).unwrap();
        }
        assert!(in_tar(MultiGzDecoder::new(&bomb.finish().unwrap()[..])).is_err());
    }
}
