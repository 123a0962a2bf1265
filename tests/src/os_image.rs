//! Small OS images for model machines: everything that the agent looks at is there, and the kernel is a word that says
//! what the model does with it.

use anyhow::Result;
use evenkeel_e2e::registry::{self, Compression, Image, Layer, Pushed, Registry};
use serde_json::{Value, json};

/// What the kernel's file says of itself.
pub const KERNEL_BOOTS: &str = "this kernel boots\n";
/// The same, of one that does not come up.
pub const KERNEL_PANICS: &str = "this kernel panics\n";
/// The health check of an image, as the guard finds it.
pub const HEALTH_CHECK: &str = "/usr/lib/evenkeel/health.d/50-check";

/// Bytes of a file that does not compress, in an image that takes its time to stage.
const LARGE: usize = 24 << 20;

/// How an image is pulled of which it is to be seen that it is being staged: what is staged at once is never reported so.
pub fn slowly() -> Value {
    json!({ "maxBytesPerSecond": LARGE / 3 })
}

/// An OS image to be made.
#[derive(Clone, Debug)]
pub struct OsImage {
    /// `VERSION_ID`.
    pub version: String,
    /// Content of the kernel's file; absent: no kernel.
    pub kernel: Option<&'static str>,
    /// Whether its health check says that it is healthy.
    pub healthy: bool,
    /// Bytes of a file that does not compress.
    pub filler: usize,
    /// Bytes of the initrd.
    pub initrd: usize,
    /// OCI architecture.
    pub architecture: &'static str,
}

impl OsImage {
    /// An image that boots and is healthy.
    pub fn good(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            kernel: Some(KERNEL_BOOTS),
            healthy: true,
            filler: 1 << 20,
            initrd: 64 << 10,
            architecture: "amd64",
        }
    }

    /// The same, which takes three seconds when it is pulled [`slowly`].
    pub fn large(version: &str) -> Self {
        Self { filler: LARGE, ..Self::good(version) }
    }

    /// Pushes it as `REPOSITORY:VERSION`, in a base layer that versions share and one of its own.
    pub async fn push(&self, registry: &Registry, repository: &str) -> Result<Pushed> {
        let base = Layer::from_tar(&base()?, Compression::Gzip)?;
        let own = Layer::from_tar(&self.own_layer()?, Compression::Zstd)?;
        let image = Image { architecture: self.architecture.to_owned(), ..Image::new(vec![base, own]) };
        let image = image.label("org.opencontainers.image.version", &self.version);
        registry::push(registry, repository, &self.version, &image).await
    }

    fn own_layer(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::new();
        let release = format!("ID=model\nVERSION_ID={}\n", self.version);
        archive.file("usr/lib/os-release", 0o644, release.as_bytes())?;
        if let Some(kernel) = self.kernel {
            // A kernel of its own for each version, as real images have: nothing is shared on the boot partition.
            let text = format!("{kernel}version {}\n", self.version);
            archive.file("usr/lib/modules/6.1.0/vmlinuz", 0o644, text.as_bytes())?;
            let seed = self.version.bytes().map(u64::from).sum();
            archive.file("usr/lib/modules/6.1.0/initrd", 0o644, &noise(self.initrd, seed))?;
        }
        let verdict = if self.healthy { "exit 0" } else { "echo 'the model is not well' >&2\nexit 1" };
        archive.file(&HEALTH_CHECK[1..], 0o755, format!("#!/bin/sh\n{verdict}\n").as_bytes())?;
        let seed = self
            .version
            .bytes()
            .fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        archive.file("usr/share/filler", 0o644, &noise(self.filler, seed))?;
        archive.end()
    }
}

/// The base layer, as a tar archive: what every image has.
pub fn base() -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.file("usr/lib/systemd/boot/efi/systemd-bootx64.efi", 0o644, b"the model needs no loader\n")?;
    archive.file("usr/share/base", 0o644, &noise(256 << 10, 1))?;
    archive.end()
}

/// Bytes that no compression shrinks, the same for the same seed (xorshift).
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        Ok(self.0.append_data(&mut header, path, bytes)?)
    }

    fn end(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}
