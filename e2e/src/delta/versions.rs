//! Two versions of a Debian with everything in it: one as the archive has it now, and one in which a package is older.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_node_agent_core::erofs::BLOCK;
use serde::{Deserialize, Serialize};
use tar::Archive;
use tokio::process::Command;

use crate::{
    archive, cache,
    os_image::debian,
    process::{Scratch, output},
    progress,
    registry::{Compression, Form, Layer},
};

/// What a node has, with the kernel for all machines.
const PACKAGES: &str = "usr-is-merged,systemd,systemd-sysv,udev,dbus,kmod,linux-image-amd64,systemd-boot-efi,dmsetup,\
     runc,containernetworking-plugins,iptables,e2fsprogs,iproute2,openssh-server,ca-certificates,libssl3";
/// The package that is updated: what everybody has to update now and then.
const PACKAGE: &str = "libssl3";
/// Installs a package over a root without changing it: what changes is the layer. In a mount namespace of its own:
/// whatever happens, no mount stays behind.
const UPDATE: &str = r#"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
    mount --bind /dev "$4/dev"
    dpkg --root="$4" --install "$5"
"#;

/// The versions as layers.
pub(super) struct Versions {
    /// All of the older one.
    pub before: Layer,
    /// What the update adds, as a layer on top.
    pub update: Layer,
    /// Each squashed, with a chunk table.
    pub squashed: [Layer; 2],
    /// Bytes of files that the update brings, as a part of all files' bytes.
    pub changed: f64,
    /// The update, for people.
    pub what: String,
    /// Bytes of the blocks that files lie in.
    pub blocks: Blocks,
}

/// Bytes of the blocks that the files of the ordinary layers lie in, each from a block of its own on.
pub(super) struct Blocks {
    pub before: u64,
    pub update: u64,
}

#[derive(Serialize, Deserialize)]
struct Facts {
    changed: f64,
    what: String,
}

/// Builds them, or takes them from the cache. The cache's are of the day on which they were built.
pub(super) async fn build() -> Result<Versions> {
    let key = cache::key([PACKAGES, PACKAGE, UPDATE].into_iter().chain(archive::PACKING).map(str::as_bytes));
    let folder = cache::entry("delta", &key, async |folder| make(&folder).await).await?;
    let facts = folder.join("facts.json");
    let Facts { changed, what } = serde_json::from_slice(&fs::read(&facts).context("read the facts")?)?;
    let ordinary = |name: &str| {
        let path = folder.join(name);
        tokio::task::spawn_blocking(move || Layer::from_file(&path, Compression::Zstd))
    };
    let (before, update) = (ordinary("before.tar.zst").await??, ordinary("update.tar.zst").await??);
    let count = |name: &str| {
        let path = folder.join(name);
        tokio::task::spawn_blocking(move || blocks(&path))
    };
    let blocks = Blocks { before: count("before.tar.zst").await??, update: count("update.tar.zst").await?? };
    let squashed = [layer(&folder, "before").await?, layer(&folder, "after").await?];
    Ok(Versions { before, update, squashed, changed, what, blocks })
}

/// A squashed version.
async fn layer(folder: &Path, name: &str) -> Result<Layer> {
    Layer::chunked(&folder.join(format!("{name}.tar")), &blob(folder, name), Form::ZstdChunked).await
}

fn blob(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("blob")
}

async fn make(folder: &Path) -> Result<()> {
    let scratch = Scratch::new("delta-versions")?;
    let work = |name: &str| scratch.path().join(name);
    for name in ["upper", "work", "merged"] {
        fs::create_dir(work(name)).with_context(|| format!("make the folder {name}"))?;
    }
    let (new, old) = packages(scratch.path()).await?;
    debian::bootstrap(&work("root.tar"), PACKAGES, []).await?;
    let root = work("root");
    archive::unpack(&work("root.tar"), &root).await?;
    initrd(&root)?;
    let mut downgrade = Command::new("dpkg");
    downgrade.arg(format!("--root={}", root.display())).args(["--force-downgrade", "--install"]).arg(&old);
    output(downgrade).await?;
    // Devices are no part of a layer, and are there only for what packages run when they are installed.
    fs::remove_dir_all(root.join("dev"))
        .and_then(|()| fs::create_dir(root.join("dev")))
        .context("empty dev")?;
    let file = |name: &str| folder.join(name);
    progress::long("pack the older version", archive::pack(&root, &file("before.tar"))).await?;
    let mut update = Command::new("unshare");
    update.args(["--mount", "--", "sh", "-euc", UPDATE, "sh"]);
    update.args([&root, &work("upper"), &work("work"), &work("merged"), &new]);
    output(update).await?;
    archive::pack(&work("upper"), &work("update.tar")).await?;
    let mut apply = Command::new("cp");
    apply.arg("--archive").arg(work("upper").join(".")).arg(&root);
    output(apply).await?;
    progress::long("pack the newer version", archive::pack(&root, &file("after.tar"))).await?;
    archive::compress(&work("update.tar"), &file("update.tar.zst")).await?;
    archive::compress(&file("before.tar"), &file("before.tar.zst")).await?;
    layer(folder, "before").await?;
    layer(folder, "after").await?;
    let name =
        |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let what = format!("{} becomes {}", name(&old), name(&new));
    #[expect(clippy::cast_precision_loss, reason = "trees have less than 2^52 bytes")]
    let changed = files(&work("update.tar"))? as f64 / files(&file("after.tar"))? as f64;
    let facts = serde_json::to_vec(&Facts { changed, what }).context("write the facts")?;
    fs::write(file("facts.json"), facts).context("write the facts")?;
    // They are three times as large as everything that is kept.
    ["before.tar", "after.tar"]
        .into_iter()
        .try_for_each(|name| fs::remove_file(file(name)))
        .context("remove a tar")
}

/// Downloads the newest version of the package, and the one before it.
async fn packages(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let mut list = Command::new("apt-cache");
    list.args(["madison", PACKAGE]);
    let listed = String::from_utf8(output(list).await?).context("read the versions of a package")?;
    // PACKAGE | VERSION | WHERE, the newest first.
    let mut versions: Vec<&str> =
        listed.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
    versions.dedup();
    ensure!(versions.len() > 1, "{PACKAGE} has one version only in this host's sources: {listed}");
    let mut files = Vec::new();
    for version in &versions[..2] {
        let mut download = Command::new("apt-get");
        download.args(["download", "-qq", &format!("{PACKAGE}={version}")]).current_dir(folder);
        output(download).await?;
        let is_new =
            |path: &PathBuf| path.extension().is_some_and(|end| end == "deb") && !files.contains(path);
        let listing = fs::read_dir(folder).context("list what was downloaded")?;
        let found = listing.flatten().map(|entry| entry.path()).find(is_new);
        files.push(found.context("apt-get download made no file")?);
    }
    let mut files = files.into_iter();
    files.next().zip(files.next()).context("two versions were downloaded")
}

/// Something in the place of an initrd, which every image must have; nothing here boots.
fn initrd(root: &Path) -> Result<()> {
    let modules = root.join("usr/lib/modules");
    for version in fs::read_dir(&modules).with_context(|| format!("list {}", modules.display()))? {
        let version = version?.file_name();
        let path = root.join("boot").join(format!("initrd.img-{}", version.to_string_lossy()));
        fs::write(&path, b"nothing here boots\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Bytes of all files in an archive.
fn files(path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut bytes = 0;
    for entry in Archive::new(file).entries().context("read an archive")? {
        bytes += entry.context("read an archive")?.size();
    }
    Ok(bytes)
}

/// Bytes of the blocks that the files of a compressed archive lie in.
fn blocks(path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut archive = Archive::new(zstd::Decoder::new(file).context("inflate an archive")?);
    let mut bytes = 0;
    for entry in archive.entries().context("read an archive")? {
        bytes += entry.context("read an archive")?.size().next_multiple_of(BLOCK as u64);
    }
    Ok(bytes)
}
