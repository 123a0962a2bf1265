//! What happens to a machine, and what a person does about it in the words of the documentation.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use evenkeel_node_agent_core::layout::{MIB, RECOVERY_SLOT, Role};
use tokio::time::sleep;

use super::{
    damage::{Loss, lose},
    machine::Lived,
};
use crate::trial::case::{damaged, up};

/// What the machine's own cloud-config leaves, on the oem partition and in the system.
const CLOUD_CONFIG: &str =
    "#cloud-config\nhostname: lived\nwrite_files: [{path: /etc/from-oem, content: mine}]\n";
/// What the machine has of its own, on the state partition.
const MARK: &str = "echo mine | tee /var/lib/mark /etc/mark /root/mark > /home/mark; sync";
const MARKED: &str = "cat /var/lib/mark /etc/mark /root/mark /home/mark";
const OEM: &str = "mount -o ro /dev/disk/by-partlabel/evenkeel-oem /mnt && ls /mnt; umount /mnt";
/// Bytes that a disk has more.
const GROWTH: u64 = 2 << 30;
/// The guard looks every five seconds once the system is up.
const KEPT: Duration = Duration::from_mins(3);

pub(super) struct Story {
    pub name: &'static str,
    pub about: &'static str,
    plot: Plot,
}

#[derive(Clone, Copy)]
enum Plot {
    Anew,
    Recovery,
    Loss,
    BootPartition,
    LargerDisk,
}

pub(super) const STORIES: &[Story] = &[
    Story {
        name: "anew",
        about: "installed on an empty disk, updated, taken back, and begun anew from the system that runs",
        plot: Plot::Anew,
    },
    Story {
        name: "recovery",
        about: "both slots are damaged, the recovery slot boots, and the machine begins anew from there",
        plot: Plot::Recovery,
    },
    Story {
        name: "loss",
        about: "each copy of the partition table is lost, and the beginning of the state partition",
        plot: Plot::Loss,
    },
    Story {
        name: "boot-partition",
        about: "the boot partition is lost, and the first mebibyte of the disk: brought back from a live system",
        plot: Plot::BootPartition,
    },
    Story {
        name: "larger-disk",
        about: "its disk becomes larger while it is off, and while it boots the state takes the rest",
        plot: Plot::LargerDisk,
    },
];

impl Story {
    pub(super) async fn tell(&self, machine: &mut Lived<'_>) -> Result<()> {
        install(machine).await?;
        machine.power_on(&[up("a")]).await?;
        machine.sh(MARK).await?;
        match self.plot {
            Plot::Anew => anew(machine).await,
            Plot::Recovery => recovery(machine).await,
            Plot::Loss => loss(machine).await,
            Plot::BootPartition => boot_partition(machine).await,
            Plot::LargerDisk => larger_disk(machine).await,
        }
    }
}

async fn install(machine: &Lived<'_>) -> Result<()> {
    let cloud_config = tempfile::NamedTempFile::new()?;
    std::fs::write(cloud_config.path(), CLOUD_CONFIG)?;
    let image = machine.image_here("1");
    let path = cloud_config.path().display().to_string();
    let what = ["install", &image, "--recovery-image", &image, "--plain-http", "--cloud-config", &path];
    let how = ["--slot-size", "1GiB", "--bootloader", machine.loader.option()];
    machine.agent_on_disk(&[&what[..], &how[..]].concat()).await.map(|_| ())
}

async fn anew(machine: &mut Lived<'_>) -> Result<()> {
    machine.sh("evenkeel-agent doctor").await?;
    let (one, two) = (machine.image("1"), machine.image("2"));
    ensure!(
        machine.sh("cat /etc/from-oem /etc/hostname").await? == "minelived",
        "the cloud-config was not applied"
    );

    machine.sh(&format!("evenkeel-agent recovery {two} --plain-http")).await?;
    let recovery = machine.listed(RECOVERY_SLOT).await?;
    ensure!(
        recovery.version.as_deref() == Some("2") && recovery.bootable && !recovery.default,
        "{recovery:?}"
    );

    update(machine, &two).await?;
    machine.sh("evenkeel-agent rollback").await?;
    machine.reboot(&[up("a")]).await?;
    machine.sh(MARKED).await?;

    machine.sh("evenkeel-agent rollback --to recovery").await?;
    machine.reboot(&[up(RECOVERY_SLOT)]).await?;
    machine.sh("grep VERSION_ID=2 /etc/os-release && evenkeel-agent slots").await?;
    is_unmarked(machine).await?;
    machine.sh("evenkeel-agent rollback --to a").await?;
    machine.reboot(&[up("a")]).await?;
    machine.sh(MARKED).await?;

    machine.sh("evenkeel-agent reset").await?;
    machine.reboot(&[up("a")]).await?;
    is_unmarked(machine).await?;
    machine.sh("cat /etc/from-oem").await?;

    machine.sh(MARK).await?;
    machine.sh(&format!("evenkeel-agent reset {one} --keep-state --wipe-oem --plain-http")).await?;
    machine.reboot(&[up("b")]).await?;
    is_kept(machine, "b").await?;
    machine.sh(MARKED).await?;
    let oem = machine.sh(OEM).await?;
    ensure!(!oem.contains("cloud-config"), "the oem partition was not made anew: {oem}");
    machine.sh("evenkeel-agent doctor").await.map(|_| ())
}

async fn recovery(machine: &mut Lived<'_>) -> Result<()> {
    let (one, two) = (machine.image("1"), machine.image("2"));
    update(machine, &two).await?;
    machine.power_off().await?;
    for name in ["a", "b"] {
        let slot = machine.slot(name).await?;
        slot.flip(slot.root_inode()?)?;
    }
    machine.power_on(&[damaged("b"), damaged("a"), up(RECOVERY_SLOT)]).await?;
    machine.sh("evenkeel-agent slots").await?;
    let verified = machine.ask("evenkeel-agent verify").await?;
    ensure!(verified.status == 6, "both slots are damaged, and `verify` ended with {}", verified.status);
    machine.sh(&format!("evenkeel-agent reset {one} --plain-http")).await?;
    machine.reboot(&[up("a")]).await?;
    is_unmarked(machine).await?;
    machine.sh("cat /etc/from-oem").await?;
    is_kept(machine, "a").await?;

    machine.sh(MARK).await?;
    machine.power_off().await?;
    let slot = machine.slot("a").await?;
    slot.flip(slot.root_inode()?)?;
    machine.power_on(&[damaged("a"), up(RECOVERY_SLOT)]).await?;
    machine.sh(&format!("evenkeel-agent reset {two} --keep-state --plain-http")).await?;
    machine.reboot(&[up("b")]).await?;
    machine.sh(MARKED).await?;
    is_kept(machine, "b").await?;
    let slot = machine.sh("evenkeel-agent verify --slot b").await?;
    ensure!(slot.contains("holds what was written"), "{slot}");
    Ok(())
}

async fn loss(machine: &mut Lived<'_>) -> Result<()> {
    for (loss, tag) in [(Loss::PrimaryTable, "2"), (Loss::BackupTable, "1")] {
        machine.power_off().await?;
        lose(machine.disk(), loss)?;
        machine.power_on(&[up("a")]).await?;
        machine.sh(MARKED).await?;
        machine.sh("evenkeel-agent doctor").await?;
        machine.sh(&format!("evenkeel-agent stage {} --plain-http", machine.image(tag))).await?;
    }
    machine.power_off().await?;
    lose(machine.disk(), Loss::Begin(Role::State))?;
    machine.power_on(&[up("a")]).await?;
    machine.sh(MARKED).await?;
    machine.sh("evenkeel-agent doctor").await?;
    update(machine, &machine.image("2")).await
}

async fn boot_partition(machine: &mut Lived<'_>) -> Result<()> {
    update(machine, &machine.image("2")).await?;
    for loss in [Loss::Begin(Role::Esp), Loss::FirstMebibyte, Loss::Partition(Role::Esp)] {
        machine.power_off().await?;
        lose(machine.disk(), loss)?;
        let refused = machine.agent_on_disk(&["disk", "mend"]).await;
        if !matches!(loss, Loss::FirstMebibyte) {
            let words = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(words.contains("--slot"), "it did not ask for a slot: {words}");
            let loader = machine.loader.option();
            machine.agent_on_disk(&["disk", "mend", "--slot", "b", "--bootloader", loader]).await?;
        }
        machine.power_on(&[up("b")]).await?;
        machine.sh(MARKED).await?;
        machine.sh("evenkeel-agent doctor").await?;
        let recovery = machine.listed(RECOVERY_SLOT).await?;
        ensure!(recovery.bootable && !recovery.default, "{recovery:?}");
    }
    Ok(())
}

async fn larger_disk(machine: &mut Lived<'_>) -> Result<()> {
    let before = state_mebibytes(machine).await?;
    machine.power_off().await?;
    machine.enlarge_disk(GROWTH)?;
    machine.power_on(&[up("a")]).await?;
    machine.sh(MARKED).await?;
    let after = state_mebibytes(machine).await?;
    // The file system has tables of its own.
    ensure!(after > before + GROWTH / MIB / 10 * 9, "the state grew from {before} to {after} MiB");
    let said = machine.sh("evenkeel-agent doctor && evenkeel-agent grow 2>&1").await?;
    ensure!(!said.contains("has lost") && said.contains("its file system all of that"), "{said}");
    update(machine, &machine.image("2")).await?;
    machine.sh(MARKED).await.map(|_| ())
}

async fn state_mebibytes(machine: &mut Lived<'_>) -> Result<u64> {
    let said = machine.sh("df --block-size=1M --output=size /var | tail -n 1").await?;
    said.trim().parse().with_context(|| format!("read what df says: {said}"))
}

/// The update of the documentation, by hand.
async fn update(machine: &mut Lived<'_>, image: &str) -> Result<()> {
    machine.sh(&format!("evenkeel-agent stage {image} --plain-http")).await?;
    machine.sh("evenkeel-agent activate").await?;
    machine.reboot(&[up("b")]).await?;
    machine.sh("evenkeel-agent commit").await?;
    machine.sh(MARKED).await.map(|_| ())
}

async fn is_unmarked(machine: &mut Lived<'_>) -> Result<()> {
    let said = machine.sh("ls /var/lib/mark /etc/mark /root/mark /home/mark || true").await?;
    ensure!(said.matches("No such file").count() == 4, "what the machine had is still there: {said}");
    Ok(())
}

/// Waits until the health checks of a machine that begins anew have kept its slot.
async fn is_kept(machine: &mut Lived<'_>, slot: &str) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < KEPT {
        let slot = machine.listed(slot).await?;
        if slot.default && slot.tries_left.is_none() {
            return Ok(());
        }
        sleep(Duration::from_secs(5)).await;
    }
    bail!("slot {slot} is not kept after {} s", KEPT.as_secs())
}
