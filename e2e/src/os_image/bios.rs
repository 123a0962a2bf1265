//! GRUB for machines with BIOS, made as in the Dockerfile of docs/install.md.

use std::fs;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::version;
use crate::{
    host_packages,
    process::{Scratch, output},
};

/// The first sector: the file, here and in the image, and its Debian package.
const BOOT: (&str, &str) = ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin");
/// Beside it in the image.
const CORE: &str = "/usr/lib/grub/i386-pc/core.img";
const MKIMAGE: (&str, &str) = ("grub-mkimage", "grub-common");
/// Where its configuration is: on the first partition of the disk that the BIOS started.
const PREFIX: &str = "(,gpt1)/EFI/debian";
const MODULES: [&str; 12] = [
    "biosdisk",
    "part_gpt",
    "fat",
    "normal",
    "configfile",
    "loadenv",
    "test",
    "linux",
    "boot",
    "echo",
    "ls",
    "reboot",
];

/// The layer as a tar archive.
pub(super) async fn layer() -> Result<Vec<u8>> {
    host_packages::ensure(&[BOOT, MKIMAGE]).await?;
    let scratch = Scratch::new("grub")?;
    let core = scratch.path().join("core.img");
    let mut command = Command::new(host_packages::find(MKIMAGE.0)?);
    command.args(["-O", "i386-pc", "-p", PREFIX, "-o"]).arg(&core).args(MODULES);
    output(command).await.context("make GRUB's core.img")?;
    let (boot, core) = (fs::read(BOOT.0).with_context(|| format!("read {}", BOOT.0))?, fs::read(&core)?);
    let in_image = |path: &'static str| path.trim_start_matches('/');
    version::files_layer(&[(in_image(BOOT.0), &boot), (in_image(CORE), &core)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tested_is_what_is_documented() {
        let page = include_str!("../../../docs/install.md");
        let words =
            format!("grub-mkimage -O i386-pc -p '{PREFIX}' -o {CORE} \\\n    {}\n", MODULES.join(" "));
        assert!(page.contains(&words), "docs/install.md does not say: {words}");
    }
}
