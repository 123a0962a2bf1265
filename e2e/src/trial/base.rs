//! What all cases of a loader begin with: a disk with version 1 in slot a, which has booted and is kept, and version 2 in
//! slot b.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::layout::{self, Place, Role};
use serde::Deserialize;
use tokio::process::Command;

use super::{
    case::{Boot, Circumstances, Loader, up},
    run::{self, Patience},
};
use crate::{
    binaries::{self, Binaries, Binary},
    host_packages, machine,
    os_image::TrialImages,
    process::output,
    progress,
    registry::{self, Registry},
    tools::{self, Tool, Tools},
};

pub(super) const DISK_BYTES: u64 = 4 << 30;
const SLOT_BYTES: u64 = 1 << 30;
const SLOTS: u8 = 2;
/// How often a machine whose emulator hung is begun again.
pub(super) const HANGS_MAX: u32 = 2;
/// The first boot says how fast this host is; one that takes longer is of no use for tests.
const FIRST_BOOT_LIMIT: Duration = Duration::from_mins(8);

/// What runs on this host.
pub(super) struct Host {
    pub agent: PathBuf,
    pub registry: Registry,
    pub folder: PathBuf,
}

/// A disk to copy, and how long a boot takes on this host.
pub(super) struct Base {
    pub disk: PathBuf,
    pub boot_time: Duration,
}

/// What `evenkeel-agent slots` says of a slot.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub name: String,
    pub version: Option<String>,
    pub digest: Option<String>,
    pub bootable: bool,
    pub default: bool,
    pub tries_left: Option<u32>,
}

impl Host {
    /// Builds what is needed and pushes the images that these loaders boot.
    pub(super) async fn prepare(folder: &Path, loaders: &[Loader]) -> Result<Self> {
        let images: BTreeSet<TrialImages> = loaders.iter().map(|loader| loader.images()).collect();
        Self::prepare_with(folder, async |registry, tools, binaries| {
            for images in &images {
                images.publish(registry, tools, binaries).await?;
            }
            Ok(())
        })
        .await
    }

    /// As [`Self::prepare`], with images of the caller's.
    pub(super) async fn prepare_with(
        folder: &Path,
        publish: impl AsyncFnOnce(&Registry, &Tools, &Binaries) -> Result<()>,
    ) -> Result<Self> {
        machine::prepare_host().await?;
        // For what is changed on disks.
        host_packages::ensure(&[("cpio", "cpio"), ("mcopy", "mtools")]).await?;
        let tools = tools::ensure(&[Tool::Kubelet, Tool::Containerd, Tool::ContainerdShim]).await?;
        let binaries = binaries::build().await?;
        let registry = Registry::start(&folder.join("registry"), registry::Options::default()).await?;
        publish(&registry, &tools, &binaries).await?;
        Ok(Self { agent: binaries.path(Binary::Agent), registry, folder: folder.to_owned() })
    }

    /// An image's reference on this host, as the loader boots it.
    pub(super) fn image(&self, loader: Loader, tag: &str) -> String {
        format!("{}/{}:{tag}", self.registry.address(), loader.images().repository())
    }

    /// The slots of a disk.
    pub(super) async fn slots(&self, disk: &Path) -> Result<Vec<Listed>> {
        let said = agent(&self.agent, disk, &["slots", "--output", "json"]).await?;
        serde_json::from_slice(&said).context("read what `slots` says")
    }
}

impl Base {
    /// Installs, boots once, and stages.
    pub(super) async fn prepare(host: &Host, loader: Loader) -> Result<Self> {
        let folder = host.folder.join(loader.name());
        std::fs::create_dir_all(&folder).context("make a folder for the disk")?;
        let disk = folder.join("disk.img");
        let (size, slot_size) = (DISK_BYTES.to_string(), SLOT_BYTES.to_string());
        let image = host.image(loader, "1");
        let install = ["install", &image, "--plain-http", "--bootloader", loader.option()];
        let sizes = ["--size", &size, "--slot-size", &slot_size];
        progress::step(&format!("install version 1 with {} into slot a", loader.name()));
        agent(&host.agent, &disk, &[&install[..], &sizes[..]].concat()).await?;
        let boot_time = first_boot(&disk, &folder, loader).await?;
        progress::step("stage version 2 into slot b");
        agent(&host.agent, &disk, &["stage", &host.image(loader, "2"), "--slot", "b", "--plain-http"])
            .await?;
        Ok(Self { disk, boot_time })
    }
}

async fn first_boot(disk: &Path, folder: &Path, loader: Loader) -> Result<Duration> {
    const UP: &[Boot] = &[up("a")];
    let patience = Patience { limit: FIRST_BOOT_LIMIT, hangs_are_the_emulators: true };
    for attempt in 0.. {
        let begun = Instant::now();
        let console = folder.join(format!("first-boot-{attempt}"));
        let boots = run::boot(disk, &console, loader, Circumstances::Usual, UP, patience);
        match progress::long("boot version 1", boots).await {
            Err(hang) if attempt < HANGS_MAX && run::is_hang(&hang) => run::tell(&hang),
            boots => return boots.map(|_| begun.elapsed()),
        }
    }
    unreachable!("the loop ends with its last attempt")
}

/// Where a partition of such a disk lies.
pub(super) fn place(role: Role) -> Result<Place> {
    let places = layout::layout(DISK_BYTES, Some(SLOT_BYTES), SLOTS).context("lay out the disk")?;
    places.into_iter().find(|place| place.role == role).context("the layout has no such partition")
}

/// Runs `evenkeel-agent` with a disk file. Gives what it prints.
pub(super) async fn agent(agent: &Path, disk: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(agent);
    command.args(arguments).arg("--disk").arg(disk);
    output(command).await
}
