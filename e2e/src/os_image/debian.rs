//! The lowest layer: Debian packages, without what a node never reads.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::{archive, cache, host_packages, process::output, progress};

const SUITE: &str = "bookworm";
const PACKAGES: &str = "usr-is-merged,systemd,systemd-sysv,udev,dbus,kmod,linux-image-cloud-amd64,dracut-core,\
     systemd-boot-efi,dmsetup,runc,containernetworking-plugins,iptables,e2fsprogs,iproute2,ca-certificates";
/// Half of the bytes that the packages have, and nothing of it is used in these machines.
const LEFT_OUT: [&str; 36] = [
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/perl/*",
    "/usr/lib/x86_64-linux-gnu/perl/*",
    "/usr/lib/x86_64-linux-gnu/gconv/*",
    "/usr/lib/udev/hwdb.d/*",
    "/usr/lib/cni/bandwidth",
    "/usr/lib/cni/dhcp",
    "/usr/lib/cni/firewall",
    "/usr/lib/cni/host-device",
    "/usr/lib/cni/ipvlan",
    "/usr/lib/cni/macvlan",
    "/usr/lib/cni/ptp",
    "/usr/lib/cni/sbr",
    "/usr/lib/cni/static",
    "/usr/lib/cni/tuning",
    "/usr/lib/cni/vlan",
    "/usr/lib/cni/vrf",
    "/lib/modules/*/kernel/arch/x86/kvm/*",
    "/lib/modules/*/kernel/drivers/comedi/*",
    "/lib/modules/*/kernel/drivers/hid/*",
    "/lib/modules/*/kernel/drivers/infiniband/*",
    "/lib/modules/*/kernel/drivers/md/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/*",
    "/lib/modules/*/kernel/drivers/target/*",
    "/lib/modules/*/kernel/fs/btrfs/*",
    "/lib/modules/*/kernel/fs/ceph/*",
    "/lib/modules/*/kernel/fs/nfs/*",
    "/lib/modules/*/kernel/fs/nfsd/*",
    "/lib/modules/*/kernel/fs/smb/*",
    "/lib/modules/*/kernel/fs/xfs/*",
    "/lib/modules/*/kernel/net/ceph/*",
    "/lib/modules/*/kernel/net/sunrpc/*",
];
/// What a slot is verified with while it runs, out of a folder that is left out.
const KEPT: [&str; 3] = [
    "/lib/modules/*/kernel/drivers/md/dm-mod.ko",
    "/lib/modules/*/kernel/drivers/md/dm-bufio.ko",
    "/lib/modules/*/kernel/drivers/md/dm-verity.ko",
];
/// Where apt on this host looks for packages: the image is built from the same archive.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// The layer, as an archive to unpack and as it is pushed.
pub struct Debian {
    /// Identity of what is in it.
    pub key: String,
    /// The archive.
    pub archive: PathBuf,
    /// The same, compressed with zstd.
    pub layer: PathBuf,
}

/// Builds the layer with mmdebstrap, or takes it from the cache.
pub async fn build() -> Result<Debian> {
    let key = cache::key([SUITE, PACKAGES].into_iter().chain(LEFT_OUT).chain(KEPT).map(str::as_bytes));
    let folder = cache::entry("debian", &key, async |folder| {
        let archive = folder.join("root.tar");
        let left_out = LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")).into_iter();
        let kept = KEPT.map(|path| format!("--dpkgopt=path-include={path}"));
        let hardware = "--customize-hook=rm -f \"$1\"/usr/lib/udev/hwdb.bin".to_owned();
        bootstrap(&archive, PACKAGES, left_out.chain(kept).chain([hardware])).await?;
        progress::long("compress the layer of Debian packages", archive::compress(&archive, &layer(&folder)))
            .await
    })
    .await?;
    Ok(Debian { archive: folder.join("root.tar"), layer: layer(&folder), key })
}

fn layer(folder: &Path) -> PathBuf {
    folder.join("layer.tar.zst")
}

/// Installs Debian's essential packages and some more into an archive, from where this host has its own. `options` are
/// those of mmdebstrap.
pub(crate) async fn bootstrap(
    archive: &Path,
    packages: &str,
    options: impl IntoIterator<Item = String>,
) -> Result<()> {
    host_packages::ensure(&[("mmdebstrap", "mmdebstrap")]).await?;
    let sources = SOURCES.into_iter().find(|path| {
        std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| !line.trim().is_empty()))
    });
    let sources = sources.context("this host has no list of Debian's package sources in /etc/apt")?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--variant=essential", "--format=tar"])
        // Otherwise a package comes in that merges /bin into /usr, and brings all of Perl.
        .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
        .arg(format!("--include={packages}"))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .args(options)
        // It is made later, by `evenkeel-agent init`.
        .arg("--customize-hook=rm -f \"$1\"/boot/initrd*")
        .args([SUITE.as_ref(), archive.as_os_str(), sources.as_ref()])
        .env("INITRD", "No");
    progress::long("install Debian packages into an image", output(command)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keeps Perl out, and a kernel for virtual machines alone.
    const OF_THE_DEMO_ALONE: [&str; 2] = ["usr-is-merged", "linux-image-cloud-amd64"];

    #[test]
    fn what_is_booted_is_what_is_documented() {
        let page = include_str!("../../../docs/install.md");
        let dockerfile = page.split("```").find(|block| block.contains("FROM debian:12\n\n"));
        let words: Vec<&str> = dockerfile.into_iter().flat_map(str::split_whitespace).collect();
        let packages = PACKAGES.split(',').filter(|name| !OF_THE_DEMO_ALONE.contains(name));
        let missing: Vec<&str> = packages.filter(|name| !words.contains(name)).collect();
        assert!(missing.is_empty(), "docs/install.md does not install {missing:?}");
    }
}
