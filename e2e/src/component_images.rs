//! Images of Evenkeel's own programs: one static binary each, from nothing.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use tar::{Builder, EntryType};

use crate::{
    archive,
    binaries::{Binaries, Binary},
    host_packages, progress,
    registry::{self, Compression, Image, Layer, Registry},
};

/// What an image may have, in bytes: it is pulled by every node.
const IMAGE_BYTES_MAX: u64 = 25_000_000;
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// 1970, as reproducible images have it.
const IMAGE_MODIFIED: u64 = 0;
/// Nobody, as distroless images have it.
const USER: u64 = 65_532;

/// Makes and pushes them, with `tag`.
pub async fn publish(registry: &Registry, binaries: &Binaries, tag: &str) -> Result<()> {
    host_packages::ensure(&[("/etc/ssl/certs/ca-certificates.crt", "ca-certificates")]).await?;
    let images = [
        (Binary::Operator, "evenkeel/operator"),
        (Binary::Agent, "evenkeel/agent"),
        (Binary::Pause, "evenkeel/pause"),
    ];
    for (binary, repository) in images {
        let layer = Layer::from_tar(&archive(&binaries.path(binary))?, Compression::Zstd)?;
        let bytes = layer.length;
        ensure!(
            bytes <= IMAGE_BYTES_MAX,
            "the image of {} has {bytes} bytes, more than {IMAGE_BYTES_MAX}",
            binary.name(),
        );
        let mut image = Image::new(vec![layer]);
        image.entrypoint = vec![format!("/{}", binary.name())];
        registry::push(registry, repository, tag, &image).await?;
        progress::step(&format!("pushed {repository}:{tag}, {} kB", bytes / 1000));
    }
    Ok(())
}

fn archive(program: &Path) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    // A read-only root cannot grow them.
    for (folder, mode) in [("tmp/", 0o1777), ("run/", 0o755), ("var/", 0o755), ("etc/", 0o755)] {
        let mut header = archive::header(EntryType::Directory, mode, 0, IMAGE_MODIFIED);
        archive.append_data(&mut header, folder, &b""[..]).context("add a folder to an image")?;
    }
    let user = format!("root:x:0:0::/:/\nnonroot:x:{USER}:{USER}::/:/\n");
    let certificates = fs::read(format!("/{CERTIFICATES}")).context("read the certificates of this host")?;
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let name = program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
    for (path, mode, content) in
        [("etc/passwd", 0o644, user.as_bytes()), (CERTIFICATES, 0o644, &certificates), (name, 0o755, &bytes)]
    {
        let mut header = archive::header(EntryType::Regular, mode, content.len() as u64, IMAGE_MODIFIED);
        archive.append_data(&mut header, path, content).context("add a file to an image")?;
    }
    archive.into_inner().context("finish an image")
}
