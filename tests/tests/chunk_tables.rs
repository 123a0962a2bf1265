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

    /// Pushes a version whose system is one layer with a chunk table, with times as `touched` makes them.
    async fn push(&self, version: u64, form: Form, touched: &str) -> Result<(String, u64)> {
        let tree = self.folder.path().join(format!("tree-{version}"));
        let (tar, blob) = (tree.with_extension("tar"), tree.with_extension("blob"));
        grow(&tree, version).await?;
        let mut touch = Command::new("find");
        touch.arg(&tree).args(["-exec", "touch", "--no-dereference", "--date", touched, "{}", "+"]);
        output(touch).await?;
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

/// A tree with all kinds of entries, with attributes. One file of a version is its own.
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

/// Stages a version over the one before, and to a disk that holds nothing. Gives what the first was, and the bytes of the layer.
async fn update(name: &str, form: Form, touched: &str) -> Result<(Staged, u64)> {
    let place = Place::new(name).await?;
    let (old, _) = place.push(1, form, touched).await?;
    let (new, length) = place.push(2, form, touched).await?;
    place.stage("disk", "a", &old).await?;
    let after = place.stage("disk", "b", &new).await?;
    let whole = place.stage("other-disk", "b", &new).await?;
    let whole_bytes = whole.cost.bytes_downloaded.cast_unsigned();
    ensure!(whole_bytes >= length, "a disk that holds nothing gets all of it: {whole_bytes} of {length}");
    ensure!(after.record.root_hash == whole.record.root_hash, "the slots differ");
    Ok((after, length))
}

/// What a version costs of which only parts are fetched.
fn in_parts(after: &Staged, length: u64, most: u64) -> Result<()> {
    let bytes = after.cost.bytes_downloaded.cast_unsigned();
    ensure!(bytes < most, "{bytes} bytes of {length} were fetched");
    ensure!(after.cost.bytes_copied > 15 << 20, "{:?}", after.cost);
    Ok(())
}

const NANOSECONDS: &str = "@1700000000.123456789";
const SECONDS: &str = "@1700000000";

#[tokio::test(flavor = "multi_thread")]
async fn a_zstd_chunked_layer_is_fetched_in_parts_and_gives_the_same_slot() -> Result<()> {
    let (after, length) = update("zstd-chunked", Form::ZstdChunked, NANOSECONDS).await?;
    in_parts(&after, length, 400_000)
}

/// Its chunks have 4 MiB each, so that all of a file is fetched that became longer in its middle.
const ESTARGZ_MOST: u64 = 4_700_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_estargz_layer_is_fetched_in_parts_and_gives_the_same_slot() -> Result<()> {
    let (after, length) = update("estargz", Form::EStargz, SECONDS).await?;
    in_parts(&after, length, ESTARGZ_MOST)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estargz_layer_as_buildkit_makes_it_is_fetched_in_parts_too() -> Result<()> {
    let (after, length) = update("estargz-lossless", Form::EStargzLossless, SECONDS).await?;
    in_parts(&after, length, ESTARGZ_MOST)
}

/// Its table has no parts of seconds, so that nobody can tell its headers.
#[tokio::test(flavor = "multi_thread")]
async fn an_estargz_layer_with_parts_of_seconds_is_fetched_whole() -> Result<()> {
    for (name, form) in [("estargz-ns", Form::EStargz), ("lossless-ns", Form::EStargzLossless)] {
        let (after, length) = update(name, form, NANOSECONDS).await?;
        ensure!(after.cost.bytes_downloaded.cast_unsigned() >= length, "{:?} of {length}", after.cost);
    }
    Ok(())
}
