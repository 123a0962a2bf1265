//! How much of an image is downloaded when a node has the version before: two Debians that differ by a security update of
//! one package, as ordinary layers, and squashed into one layer with a chunk table.

mod versions;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_node_agent_core::chunks::position::Position;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    binaries::{self, Binary},
    process::{Scratch, output},
    progress,
    registry::{self, Image, Layer, Options, Registry},
};

use versions::Versions;

const DISK_SIZE: &str = "5GiB";
const SLOT_SIZE: &str = "1600MiB";
/// What may be downloaded beside the layers that changed, in parts of the image; and what may be written beside what
/// changed, in parts of what is written to a slot that is empty.
const BESIDE: f64 = 0.01;
/// What may be downloaded of a squashed image of which about one part in a hundred changed, in parts of the image.
const SQUASHED: f64 = 0.02;
/// What counts as about one part in a hundred: bytes of files that are new or changed, of all bytes of files.
const ABOUT_ONE: std::ops::Range<f64> = 0.005..0.015;

/// What became of one way to publish the versions.
struct Figures {
    /// Bytes of the newer version's layers.
    size: u64,
    downloaded: u64,
    /// Bytes that a slot with the older version was given for the newer one.
    written: u64,
    /// The same for a slot that was empty.
    written_empty: u64,
}

/// Stages both versions in both ways, prints what was downloaded and written, and fails if it was more than it should be.
pub async fn run() -> Result<()> {
    let agent = binaries::build().await?.path(Binary::Agent);
    let versions = versions::build().await?;
    let scratch = Scratch::new("delta")?;
    let registry = Registry::start(&scratch.path().join("registry"), Options::default()).await?;
    let Versions { before, update, squashed, changed, what, blocks } = versions;
    let stage = Stage { agent, registry, folder: scratch.path().to_owned() };
    println!("{what}; {} of the bytes of all files are in files that changed", percent(changed));
    ensure!(ABOUT_ONE.contains(&changed), "that is not about one part in a hundred");

    let layers = [vec![before.clone()], vec![before, update.clone()]];
    let figures = stage.both("layers", layers).await?;
    report("as ordinary layers", &figures);
    let allowed = update.length + part(figures.size, BESIDE);
    ensure!(figures.downloaded <= allowed, "more than the layer that changed and 1 %: {allowed} bytes");
    // What is there beside the data of files: metadata and hash tree.
    let other = figures.written_empty.saturating_sub(blocks.before + blocks.update);
    let allowed = blocks.update + other + part(figures.written_empty, BESIDE);
    ensure!(
        figures.written <= allowed,
        "more than what changed, metadata, hash tree and 1 %: {allowed} bytes"
    );

    let [old, new] = squashed;
    let [table, tar_split] = tables(&new)?;
    let figures = stage.both("squashed", [vec![old], vec![new]]).await?;
    report("squashed, with a chunk table (zstd:chunked)", &figures);
    let of_all = |bytes| percent(ratio(bytes, figures.size));
    println!("    {} are its chunk table; its tar-split has {}", of_all(table), of_all(tar_split));
    ensure!(ratio(figures.downloaded, figures.size) <= SQUASHED, "more than {}", percent(SQUASHED));
    Ok(())
}

/// Bytes of a layer's chunk table, and of its tar-split.
fn tables(layer: &Layer) -> Result<[u64; 2]> {
    let position =
        Position::find(&layer.annotations, layer.length)?.context("the layer has no chunk table")?;
    Ok([position.table.length, position.tar_split.length])
}

fn report(way: &str, figures: &Figures) {
    let Figures { size, downloaded, written, written_empty } = figures;
    let (of_size, of_slot) = (percent(ratio(*downloaded, *size)), percent(ratio(*written, *written_empty)));
    println!("{way}: {downloaded} of {size} bytes were downloaded, {of_size}");
    println!("    {written} of {written_empty} bytes were written, {of_slot}");
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "images have less than 2^52 bytes")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bound"
)]
fn part(size: u64, share: f64) -> u64 {
    (size as f64 * share) as u64
}

struct Stage {
    agent: PathBuf,
    registry: Registry,
    folder: PathBuf,
}

impl Stage {
    /// Stages one version into both slots, and the other into slot b; then the other on a disk that holds nothing, whose
    /// slot must be the same.
    async fn both(&self, name: &str, versions: [Vec<Layer>; 2]) -> Result<Figures> {
        let size = versions[1].iter().map(|layer| layer.length).sum();
        let mut images = Vec::new();
        for (tag, layers) in ["1", "2"].into_iter().zip(versions) {
            progress::step(&format!("push {name}:{tag}"));
            images.push(registry::push(&self.registry, name, tag, &Image::new(layers)).await?.pinned);
        }
        let disk = self.disk(name).await?;
        for slot in ["a", "b"] {
            self.stage(&disk, slot, &images[0]).await?;
        }
        let staged = self.stage(&disk, "b", &images[1]).await?;
        fs::remove_file(&disk).context("remove a disk")?;
        let empty = self.disk(&format!("{name}-empty")).await?;
        let whole = self.stage(&empty, "b", &images[1]).await?;
        fs::remove_file(&empty).context("remove a disk")?;
        ensure!(
            staged["rootHash"] == whole["rootHash"],
            "{name}: another slot than on a disk that held nothing"
        );
        let bytes =
            |staged: &Value, field: &str| staged[field].as_u64().with_context(|| format!("read {field}"));
        let [downloaded, all] = [&staged, &whole].map(|staged| bytes(staged, "bytesDownloaded"));
        let [written, written_empty] = [&staged, &whole].map(|staged| bytes(staged, "bytesWritten"));
        let all = all?;
        ensure!(all >= size, "{name}: a disk that held nothing got {all} of {size}");
        Ok(Figures { size, downloaded: downloaded?, written: written?, written_empty: written_empty? })
    }

    async fn disk(&self, name: &str) -> Result<PathBuf> {
        let disk = self.folder.join(name).with_extension("img");
        let mut command = Command::new(&self.agent);
        command.args(["disk", "create"]).arg(&disk).args(["--size", DISK_SIZE, "--slot-size", SLOT_SIZE]);
        output(command).await?;
        Ok(disk)
    }

    async fn stage(&self, disk: &Path, slot: &str, image: &str) -> Result<Value> {
        let mut command = Command::new(&self.agent);
        command
            .args(["stage", image, "--slot", slot, "--plain-http", "--output", "json", "--disk"])
            .arg(disk);
        let said = progress::long(&format!("stage {image}"), output(command)).await?;
        serde_json::from_slice(&said).context("read what the agent says of the slot")
    }
}
