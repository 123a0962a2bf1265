//! What a machine with Secure Boot on starts: shim, which Microsoft has signed, and GRUB, which Debian has, as in the Dockerfile
//! of docs/secure-boot.md. The kernel of the image has Debian's signature already.

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::version;
use crate::{
    cache, host_packages,
    process::{Scratch, output},
    progress,
};

/// Debian's packages.
const PACKAGES: [&str; 2] = ["shim-signed", "grub-efi-amd64-signed"];
/// Files of theirs, here and in the image.
const FILES: [&str; 2] =
    ["usr/lib/shim/shimx64.efi.signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"];

/// The layer as a tar archive. The packages are downloaded and never installed: their scripts would change what this host
/// boots.
pub(super) async fn layer() -> Result<Vec<u8>> {
    host_packages::ensure(&[("dpkg-deb", "dpkg")]).await?;
    let key = cache::key(PACKAGES.into_iter().chain(FILES).map(str::as_bytes));
    let folder = cache::entry("signed", &key, async |folder| {
        let scratch = Scratch::new("signed")?;
        let mut command = Command::new("sh");
        command.args(["-euc", UNPACK, "sh"]).arg(&folder).args(PACKAGES).current_dir(scratch.path());
        progress::long("download shim and GRUB with their signatures", output(command)).await.map(|_| ())
    })
    .await?;
    let read = |path: &str| {
        let path = folder.join(path);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    };
    let [shim, grub] = FILES;
    version::files_layer(&[(shim, &read(shim)?), (grub, &read(grub)?)])
}

/// apt's own user may not write to the folder, and says so.
const UNPACK: &str = r#"
    folder=$1; shift
    apt-get -qq -o APT::Sandbox::User=root download "$@" || { apt-get -qq update; apt-get -qq -o APT::Sandbox::User=root download "$@"; }
    for package in *.deb; do dpkg-deb -x "$package" "$folder"; done
"#;
