//! Layers with a chunk table that the programs of others made: what is put together from a few of their parts is the slot
//! that the whole layer gives.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::managed_os_image::Pull;
use evenkeel_e2e::{
    archive,
    process::{Scratch, output},
    registry::{self, Compression, Form, Image, Layer, Options, Registry},
};
use evenkeel_node_agent::{
    disk::Sizes,
    install,
    stage::{Meter, StageRequest, Staged, stage},
};
use evenkeel_registry::RegistryOptions;
use evenkeel_tests::os_image::{base, noise};
use tokio::process::Command;

/// Files that are the same in both versions.
const FILES: u64 = 300;
/// Bytes of each: more than one chunk for some.
const BYTES: usize = 30_000;

struct Place {
    registry: Registry,
    folder: Scratch,
}

impl Place {
    async fn new(name: &str) -> Result<Self> {
        let folder = Scratch::new(name)?;
        let registry = Registry::start(&folder.path().join("registry"), Options::default()).await?;
        Ok(Self { registry, folder })
    }

    /// Pushes a version whose system is one layer with a chunk table.
    async fn push(&self, version: u64, form: Form) -> Result<(String, u64)> {
        let tree = self.folder.path().join(format!("tree-{version}"));
        let (tar, blob) = (tree.with_extension("tar"), tree.with_extension("blob"));
        grow(&tree, version).await?;
        archive::pack(&tree, &tar).await?;
        let layer = Layer::chunked(&tar, &blob, form).await?;
        let length = layer.length;
        let image = Image::new(vec![Layer::from_tar(&base()?, Compression::Gzip)?, layer]);
        let pushed = registry::push(&self.registry, "team/os", &version.to_string(), &image).await?;
        Ok((pushed.pinned, length))
    }

    async fn stage(&self, disk: &str, slot: &str, image: &str) -> Result<Staged> {
        let path = self.folder.path().join(disk);
        let sizes = Sizes { disk: Some(1100 << 20), slot: Some(64 << 20), slots: 2 };
        let disk = match evenkeel_node_agent::disk::Disk::open(&path) {
            Ok(disk) => disk,
            Err(_) => install::create_disk(&path, sizes)?,
        };
        let pull = Pull { plain_http: true, ..Pull::default() };
        let request = StageRequest {
            cloud_config: None,
            disk,
            slot: slot.to_owned(),
            image: image.to_owned(),
            registry: RegistryOptions { pull, ..RegistryOptions::default() },
            trust: None,
            plan_id: None,
        };
        Ok(stage(&request, &Arc::new(Meter::default())).await?)
    }
}

/// A tree with all kinds of entries, with attributes and times to the nanosecond. One file of a version is its own.
async fn grow(tree: &Path, version: u64) -> Result<()> {
    let file = |path: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("it is in a folder")?)?;
        fs::write(&path, bytes)?;
        Ok(path)
    };
    for number in 0..FILES {
        file(&format!("usr/lib/{number}"), &noise(BYTES, number + 1))?;
    }
    file("usr/lib/large", &noise(6 << 20, 1000))?;
    let holes = [noise(100_000, 1001), vec![0; 3 << 20], noise(100_000, 1002)].concat();
    file("usr/lib/holes", &holes)?;
    file("usr/lib/zeros", &vec![0; 1 << 20])?;
    file("usr/lib/empty", b"")?;
    file(&format!("usr/lib/{}", "long".repeat(60)), b"a name that needs a header of its own")?;
    file("usr/lib/os-release", format!("ID=model\nVERSION_ID={version}\n").as_bytes())?;
    file("usr/lib/modules/6.1.0/vmlinuz", b"this kernel boots\n")?;
    file("usr/lib/modules/6.1.0/initrd", &noise(200_000, 1003))?;
    // A change in the middle, behind which everything lies elsewhere.
    let change = "changed ".repeat(usize::try_from(version)?);
    let shifted = [noise(2 << 20, 1004), change.into_bytes(), noise(2 << 20, 1005), vec![0; 70_000]].concat();
    file("usr/lib/shifted", &shifted)?;
    let own = file("usr/lib/own", &noise(150_000, 2000 + version))?;
    fs::hard_link(tree.join("usr/lib/large"), tree.join("usr/lib/linked"))?;
    symlink("large", tree.join("usr/lib/link"))?;
    let mut attribute = Command::new("setfattr");
    attribute.args(["--name", "user.version", "--value", "it has one"]).arg(own);
    output(attribute).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zstd_chunked_layer_is_fetched_in_parts_and_gives_the_same_slot() -> Result<()> {
    let place = Place::new("zstd-chunked").await?;
    let (old, _) = place.push(1, Form::ZstdChunked).await?;
    let (new, length) = place.push(2, Form::ZstdChunked).await?;
    place.stage("disk", "a", &old).await?;
    let in_parts = place.stage("disk", "b", &new).await?;
    let whole = place.stage("other-disk", "b", &new).await?;
    let downloaded = [&in_parts, &whole].map(|staged| u64::try_from(staged.cost.bytes_downloaded));
    let [in_parts_bytes, whole_bytes] = downloaded.map(|bytes| bytes.unwrap_or(u64::MAX));
    ensure!(whole_bytes >= length, "a disk that holds nothing gets all of it: {whole_bytes} of {length}");
    ensure!(in_parts_bytes < 400_000, "{in_parts_bytes} bytes of {length} were fetched");
    ensure!(in_parts.cost.bytes_copied > 15 << 20, "{:?}", in_parts.cost);
    ensure!(in_parts.record.root_hash == whole.record.root_hash, "the slots differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estargz_layer_is_fetched_whole() -> Result<()> {
    let place = Place::new("estargz").await?;
    let (old, _) = place.push(1, Form::EStargz).await?;
    let (new, length) = place.push(2, Form::EStargz).await?;
    place.stage("disk", "a", &old).await?;
    let after = place.stage("disk", "b", &new).await?;
    let whole = place.stage("other-disk", "b", &new).await?;
    ensure!(after.cost.bytes_downloaded.cast_unsigned() >= length, "{:?} of {length}", after.cost);
    ensure!(after.record.root_hash == whole.record.root_hash, "the slots differ");
    Ok(())
}
