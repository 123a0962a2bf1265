//! What a machine with Secure Boot on starts, as in the Dockerfiles of docs/secure-boot.md: shim, which Microsoft has signed, and
//! GRUB, which Debian has, as it has the kernel; or systemd-boot and the kernel with signatures of the machine's owner.

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::{debian::Debian, version};
use crate::{
    cache, host_packages,
    machine::OWN_KEY,
    process::{Scratch, output},
    progress,
};

/// Debian's packages.
const PACKAGES: [&str; 2] = ["shim-signed", "grub-efi-amd64-signed"];
/// Files of theirs, here and in the image.
const FILES: [&str; 2] =
    ["usr/lib/shim/shimx64.efi.signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"];

/// A layer with shim and GRUB as a tar archive. The packages are downloaded and never installed: their scripts would change what this host
/// boots.
pub(super) async fn by_shim() -> Result<Vec<u8>> {
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

/// Takes the programs out of the archive and signs them with a key that has a password.
const SIGN: &str = r#"
    openssl rsa -in "$2" -passin "pass:$3" -out key
    tar --extract --file "$1" --wildcards './boot/vmlinuz-*' "./$5"
    for program in boot/vmlinuz-* "$5"; do sbsign --key key --cert "$4" --output signed "$program" && mv signed "$program"; done
"#;
const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// A layer with systemd-boot and the kernel, signed, as a tar archive.
pub(super) async fn by_own_keys(debian: &Debian) -> Result<Vec<u8>> {
    host_packages::ensure(&[("sbsign", "sbsigntool"), ("openssl", "openssl")]).await?;
    let scratch = Scratch::new("signed")?;
    let mut command = Command::new("sh");
    command
        .args(["-euc", SIGN, "sh"])
        .arg(&debian.archive)
        .args(OWN_KEY)
        .arg(SYSTEMD_BOOT)
        .current_dir(scratch.path());
    output(command).await.context("sign systemd-boot and the kernel")?;
    let mut files = vec![SYSTEMD_BOOT.to_owned()];
    for kernel in std::fs::read_dir(scratch.path().join("boot")).context("list the kernels")? {
        files.push(format!("boot/{}", kernel?.file_name().to_string_lossy()));
    }
    let read = |path: String| std::fs::read(scratch.path().join(&path)).map(|content| (path, content));
    let files = files.into_iter().map(read).collect::<Result<Vec<_>, _>>().context("read what was signed")?;
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (path.as_str(), &**content)).collect();
    version::files_layer(&files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tested_is_what_is_documented() {
        let page = include_str!("../../../docs/secure-boot.md");
        let install = format!("--no-install-recommends {}\n", PACKAGES.join(" "));
        let copies = FILES.map(|file| {
            let (folder, _) = file.rsplit_once('/').unwrap();
            format!("COPY --from=signed /{file} /{folder}/\n")
        });
        let sign = format!("for program in /boot/vmlinuz-* /{SYSTEMD_BOOT}; do");
        for words in [install, sign].iter().chain(&copies) {
            assert!(page.contains(words), "docs/secure-boot.md does not say: {words}");
        }
    }
}
