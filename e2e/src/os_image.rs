//! The demo's operating system: Debian with a kubelet, in several versions that share all layers but the last.

mod debian;
mod node;
mod version;

use anyhow::{Context as _, Result};

use crate::{
    binaries::Binaries,
    progress,
    registry::{self, Compression, Image, Layer, Registry},
    tools::Tools,
};

use version::VERSIONS;

/// Repository of the images in the registry.
pub const REPOSITORY: &str = "evenkeel/os";

/// Builds what is not in the cache yet and pushes every version.
pub async fn publish(registry: &Registry, tools: &Tools, binaries: &Binaries) -> Result<()> {
    let debian = debian::build().await?;
    let node = node::build(&debian, tools, binaries).await?;
    let base = tokio::task::spawn_blocking(move || -> Result<Vec<Layer>> {
        let layer = |path| Layer::from_file(path, Compression::Zstd);
        Ok(vec![layer(&debian.layer)?, layer(&node)?])
    })
    .await
    .context("the thread that reads the layers ended")??;
    for version in VERSIONS {
        progress::step(&format!("push {REPOSITORY}:{}", version.tag));
        let mut layers = base.clone();
        layers.push(Layer::from_tar(&version.layer()?, Compression::Gzip)?);
        let image = Image::new(layers).label("org.opencontainers.image.version", version.tag);
        registry::push(registry, REPOSITORY, version.tag, &image).await?;
    }
    Ok(())
}
