//! How much of an image is downloaded when a node has the version before: two Debians that differ by a security update of
//! one package, as ordinary layers, and squashed into one layer with a chunk table.

mod versions;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
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
/// What may be downloaded beside the layers that changed, in parts of the image.
const BESIDE_LAYERS: f64 = 0.01;
/// What may be downloaded of a squashed image of which about one part in a hundred changed.
const OF_SQUASHED: f64 = 0.02;
/// What counts as about one part in a hundred: bytes of files that are new or changed, of all bytes of files.
const ABOUT_ONE: std::ops::Range<f64> = 0.005..0.015;

/// What became of one way to publish the versions.
struct Figures {
    size: u64,
    downloaded: u64,
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "images have less than 2^52 bytes")]
    fn share(&self) -> f64 {
        self.downloaded as f64 / self.size as f64
    }
}

/// Stages both versions in both ways, prints what was downloaded, and fails if it was more than it should be.
pub async fn run() -> Result<()> {
    let agent = binaries::build().await?.path(Binary::Agent);
    let versions = versions::build().await?;
    let scratch = Scratch::new("delta")?;
    let registry = Registry::start(&scratch.path().join("registry"), Options::default()).await?;
    let Versions { before, update, squashed, changed, what } = versions;
    let stage = Stage { agent, registry, folder: scratch.path().to_owned() };
    println!("{what}; {:.2} % of the bytes of all files are in files that changed", changed * 100.0);
    ensure!(ABOUT_ONE.contains(&changed), "that is not about one part in a hundred");

    let layers = [vec![before.clone()], vec![before, update.clone()]];
    let figures = stage.both("layers", layers).await?;
    let allowed = update.length + part(figures.size, BESIDE_LAYERS);
    report("as ordinary layers", &figures);
    ensure!(figures.downloaded <= allowed, "more than the layer that changed and 1 %: {allowed} bytes");

    let [old, new] = squashed;
    let figures = stage.both("squashed", [vec![old], vec![new]]).await?;
    report("squashed, with a chunk table (zstd:chunked)", &figures);
    ensure!(figures.share() <= OF_SQUASHED, "more than 2 %");
    Ok(())
}

fn report(way: &str, figures: &Figures) {
    let Figures { size, downloaded } = figures;
    println!("{way}: {downloaded} of {size} bytes were downloaded, {:.2} %", figures.share() * 100.0);
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
    /// Stages one version into slot a and the other into slot b; then the other on a disk that holds nothing, whose slot
    /// must be the same.
    async fn both(&self, name: &str, versions: [Vec<Layer>; 2]) -> Result<Figures> {
        let size = versions[1].iter().map(|layer| layer.length).sum();
        let mut images = Vec::new();
        for (tag, layers) in ["1", "2"].into_iter().zip(versions) {
            progress::step(&format!("push {name}:{tag}"));
            images.push(registry::push(&self.registry, name, tag, &Image::new(layers)).await?.pinned);
        }
        let disk = self.disk(name).await?;
        self.stage(&disk, "a", &images[0]).await?;
        let staged = self.stage(&disk, "b", &images[1]).await?;
        fs::remove_file(&disk).context("remove a disk")?;
        let empty = self.disk(&format!("{name}-empty")).await?;
        let whole = self.stage(&empty, "b", &images[1]).await?;
        fs::remove_file(&empty).context("remove a disk")?;
        ensure!(
            staged["rootHash"] == whole["rootHash"],
            "{name}: another slot than on a disk that held nothing"
        );
        let bytes = |staged: &Value| staged["bytesDownloaded"].as_u64().context("read what was downloaded");
        ensure!(bytes(&whole)? >= size, "{name}: a disk that held nothing got {} of {size}", bytes(&whole)?);
        Ok(Figures { size, downloaded: bytes(&staged)? })
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
