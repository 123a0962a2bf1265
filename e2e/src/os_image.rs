//! The demo's operating system: Debian with a kubelet, in several versions that share all layers but the last.

mod bios;
pub(crate) mod debian;
mod lives;
mod node;
mod signed;
mod trials;
mod version;

use anyhow::{Context as _, Result};

use crate::{
    binaries::Binaries,
    host_packages, machine, progress,
    registry::{self, Compression, Image, Layer, Registry},
    tools::Tools,
};

use version::{VERSIONS, Version};

/// Repository of the images in the registry.
pub const REPOSITORY: &str = "evenkeel/os";

/// Repository of the images for single machines.
pub const TRIALS_REPOSITORY: &str = "evenkeel/trial";
/// The same with shim and GRUB, for Secure Boot.
const BY_SHIM_REPOSITORY: &str = "evenkeel/by-shim";
/// The same with what boots them signed by keys of the machine's owner.
const OWN_KEYS_REPOSITORY: &str = "evenkeel/own-keys";
/// Repository of the images for machines that are told what to do.
pub const LIVES_REPOSITORY: &str = "evenkeel/life";
/// A GRUB that needs no other files: the program, here and in the image, and its Debian package.
const GRUB: (&str, &str) = ("/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", "grub-efi-amd64-bin");

/// Where an image has its kernel options.
const KERNEL_OPTIONS: &str = "usr/lib/kernel/cmdline";

/// Builds what is not in the cache yet and pushes every version.
pub async fn publish(registry: &Registry, tools: &Tools, binaries: &Binaries) -> Result<()> {
    let base = base(tools, binaries).await?;
    push(registry, REPOSITORY, &base, &VERSIONS).await
}

/// Images for single machines, by who signed what boots them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrialImages {
    /// Nobody; they have GRUB too.
    Unsigned,
    /// Microsoft and Debian: shim and GRUB, and they have no other loader that could be started.
    ByShim,
    /// The machine's owner: systemd-boot and the kernel.
    OwnKeys,
}

impl TrialImages {
    /// Their repository in the registry.
    pub fn repository(self) -> &'static str {
        match self {
            Self::Unsigned => TRIALS_REPOSITORY,
            Self::ByShim => BY_SHIM_REPOSITORY,
            Self::OwnKeys => OWN_KEYS_REPOSITORY,
        }
    }

    /// Builds what is not in the cache yet and pushes every version.
    pub async fn publish(self, registry: &Registry, tools: &Tools, binaries: &Binaries) -> Result<()> {
        let loaders = match self {
            Self::Unsigned => unsigned_loaders().await?,
            Self::ByShim => vec![signed::by_shim().await?],
            Self::OwnKeys => vec![signed::by_own_keys(&debian::build().await?).await?],
        };
        let base = lean_base(tools, binaries, &loaders).await?;
        push(registry, self.repository(), &base, trials::TRIALS).await
    }
}

/// The same for the images of machines that are told what to do over a serial line.
pub async fn publish_lives(registry: &Registry, tools: &Tools, binaries: &Binaries) -> Result<()> {
    let mut base = lean_base(tools, binaries, &unsigned_loaders().await?).await?;
    base.push(Layer::from_tar(&lives::SHELL.layer()?, Compression::Gzip)?);
    push(registry, LIVES_REPOSITORY, &base, lives::LIVES).await
}

/// GRUB for UEFI and for BIOS, a layer each as tar archives.
async fn unsigned_loaders() -> Result<Vec<Vec<u8>>> {
    host_packages::ensure(&[GRUB]).await?;
    let grub = std::fs::read(GRUB.0).with_context(|| format!("read {}", GRUB.0))?;
    Ok(vec![version::file_layer(GRUB.0.trim_start_matches('/'), &grub)?, bios::layer().await?])
}

/// What single machines have, with layers of loaders.
async fn lean_base(tools: &Tools, binaries: &Binaries, loaders: &[Vec<u8>]) -> Result<Vec<Layer>> {
    let mut base = base(tools, binaries).await?;
    for layer in [&trials::LEAN.layer()?].into_iter().chain(loaders) {
        base.push(Layer::from_tar(layer, Compression::Gzip)?);
    }
    Ok(base)
}

async fn base(tools: &Tools, binaries: &Binaries) -> Result<Vec<Layer>> {
    let debian = debian::build().await?;
    let node = node::build(&debian, tools, binaries).await?;
    tokio::task::spawn_blocking(move || -> Result<Vec<Layer>> {
        let layer = |path| Layer::from_file(path, Compression::Zstd);
        let options = version::file_layer(KERNEL_OPTIONS, machine::kernel_options().as_bytes())?;
        Ok(vec![layer(&debian.layer)?, layer(&node)?, Layer::from_tar(&options, Compression::Gzip)?])
    })
    .await
    .context("the thread that reads the layers ended")?
}

async fn push(registry: &Registry, repository: &str, base: &[Layer], versions: &[Version]) -> Result<()> {
    for version in versions {
        progress::step(&format!("push {repository}:{}", version.tag));
        let mut layers = base.to_vec();
        layers.push(Layer::from_tar(&version.layer()?, Compression::Gzip)?);
        let image = Image::new(layers).label("org.opencontainers.image.version", version.tag);
        registry::push(registry, repository, version.tag, &image).await?;
    }
    Ok(())
}
