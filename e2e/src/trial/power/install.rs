//! A live system installs an image onto a second disk, and begins again after each cut, as a person would. What is on that
//! disk then either does not boot or is complete; in the end it is as if nothing had been cut, and boots alone.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_node_agent_core::layout::Role;
use tokio::process::Command;

use super::{
    story::{Story, copy},
    tales::{KEPT, Part, Place, Tale, after},
};
use crate::{
    host_packages,
    process::output,
    trial::{
        base::{self, HANGS_MAX, Listed},
        boots,
        case::{Boot, Circumstances, up},
        run::{self, Patience},
    },
};

const BEGUN: &str = "evenkeel-power: install";

/// What the machine's own cloud-config, which is installed too, has it say: in a stage that is over before the system is up.
const CONFIGURED: &str = "evenkeel-power: configured";

/// Exit code 4 is that of a registry that cannot be reached yet; whatever else is refused, a person would have to help.
pub(super) static INSTALL: Tale = Tale {
    name: "an installation",
    begins_in_b: false,
    script: r#"
cat > /run/machine.yaml << END
stages: {fs: [{commands: ["echo 'evenkeel-power: configured' > /dev/console"]}]}
END
say install
until $agent install IMAGE --disk DISK --slot-size 1GiB --bootloader LOADER --cloud-config /run/machine.yaml --plain-http; do
    code=$?
    [ "$code" = 4 ] || { say "failed: install ended with $code"; sleep 1000; }
    sleep 5
done
say kept
"#,
    cloud_config: None,
    // As often as an empty disk is written: the boot partition's last writes make it boot, the slot's last make that complete.
    places: &[
        after(BEGUN, 750),
        of(Part::Table, 0, 3),
        of(Part::BackupTable, 0, 1),
        of(Part::Partition(Role::Oem), 0, 20),
        of(Part::Partition(Role::State), 0, 16),
        of(Part::Partition(Role::Slot(0)), 0, 200),
        of(Part::Partition(Role::Slot(0)), 200, 25),
        of(Part::Partition(Role::Esp), 0, 450),
        of(Part::Partition(Role::Esp), 450, 15),
        after(KEPT, 20),
    ],
    ends_in: "a",
    installs: true,
};

const fn of(part: Part, skipped: u64, writes: u64) -> Place {
    Place { words: BEGUN, skipped, writes, part }
}

/// An empty disk in its place.
pub(super) fn empty(disk: &Path) -> Result<()> {
    let file = File::options().write(true).open(disk).context("open the disk")?;
    file.set_len(0).and_then(|()| file.set_len(base::DISK_BYTES)).context("empty the disk")
}

/// What a cut has left on the disk: nothing that boots, or a whole system, which boots alone.
pub(super) async fn look(story: &Story<'_>, number: usize) -> Result<&'static str> {
    // Before its table is whole it is no disk of ours.
    let Ok(slots) = story.host.slots(&story.disk).await else { return Ok("no disk yet") };
    if slots.iter().all(|slot| !slot.bootable) {
        return Ok("not installed");
    }
    is_installed(&slots)?;
    story.agent(&["verify", "--slot", "a"]).await.context("what is bootable is not complete")?;
    boots_alone(story, &format!("cut-{number}")).await?;
    Ok("installed")
}

/// Whether the disk is as if nothing had been cut.
pub(super) async fn check(story: &Story<'_>) -> Result<()> {
    host_packages::ensure(&[("sgdisk", "gdisk"), ("fsck.fat", "dosfstools"), ("e2fsck", "e2fsprogs")])
        .await?;
    is_installed(&story.host.slots(&story.disk).await?)?;
    story.agent(&["verify", "--slot", "a"]).await?;
    let table = judge("sgdisk", &["-v"], &story.disk).await?;
    ensure!(table.contains("No problems found"), "{table}");
    let boot_partition = story.folder.join("esp.img");
    extract(&story.disk, Role::Esp, &boot_partition)?;
    judge("fsck.fat", &["-n"], &boot_partition).await?;
    for role in [Role::Oem, Role::State] {
        let place = format!("{}?offset={}", story.disk.display(), base::place(role)?.offset);
        judge("e2fsck", &["-f", "-n"], Path::new(&place)).await?;
    }
    let (found, wanted) = (files(&boot_partition).await?, files_without_cuts(story).await?);
    ensure!(found == wanted, "the boot partition has\n{found}\nand not\n{wanted}");
    boots_alone(story, "end").await
}

fn is_installed(slots: &[Listed]) -> Result<()> {
    let right = |slot: &Listed| match slot.name.as_str() {
        "a" => slot.bootable && slot.default && slot.tries_left.is_none() && slot.digest.is_some(),
        _ => !slot.bootable && slot.digest.is_none(),
    };
    ensure!(slots.iter().all(right), "the disk has the slots {slots:?}");
    Ok(())
}

/// Boots a copy in a machine that has no other disk.
async fn boots_alone(story: &Story<'_>, name: &str) -> Result<()> {
    let folder = story.folder.join(name);
    fs::create_dir_all(&folder).context("make a folder for a machine")?;
    let disk = folder.join("disk.img");
    copy(&story.disk, &disk).await?;
    let (boots, console) = first_boot(story, &disk, &folder).await.context("boot the disk alone")?;
    ensure!(boots::equal(&boots, &[up("a")]), "alone the disk booted {boots:?}");
    let said = fs::read(console).context("read the console")?;
    ensure!(String::from_utf8_lossy(&said).contains(CONFIGURED), "its own cloud-config was not applied");
    base::agent(&story.host.agent, &disk, &["verify", "--slot", "a"]).await?;
    fs::remove_file(&disk).context("remove a disk")
}

/// Gives the boots and the console's log.
async fn first_boot(story: &Story<'_>, disk: &Path, folder: &Path) -> Result<(Vec<Boot<String>>, PathBuf)> {
    let patience = Patience { limit: story.boot_limit(), hangs_are_the_emulators: true };
    for attempt in 0.. {
        let machine = folder.join(format!("machine-{attempt}"));
        match run::boot(disk, &machine, story.loader, Circumstances::Usual, &[up("a")], patience).await {
            Err(hang) if attempt < HANGS_MAX && run::is_hang(&hang) => run::tell(&hang),
            boots => return Ok((boots?, machine.join("console.log"))),
        }
    }
    unreachable!("the loop ends with its last attempt")
}

/// The files on the boot partition of a disk that was installed without a cut.
async fn files_without_cuts(story: &Story<'_>) -> Result<String> {
    let disk = story.folder.join("without-cuts.img");
    File::create(&disk).and_then(|file| file.set_len(base::DISK_BYTES)).context("make a disk")?;
    let image = story.host.image(story.loader, "2");
    let how = ["--slot-size", "1GiB", "--bootloader", story.loader.option(), "--plain-http"];
    base::agent(&story.host.agent, &disk, &[&["install", &image], &how[..]].concat()).await?;
    let boot_partition = story.folder.join("without-cuts-esp.img");
    extract(&disk, Role::Esp, &boot_partition)?;
    files(&boot_partition).await
}

async fn files(boot_partition: &Path) -> Result<String> {
    let mut list = Command::new("mdir");
    list.args(["-/", "-b", "-a", "-i"]).arg(boot_partition).arg("::");
    let listed = String::from_utf8(output(list).await?).context("read a list of files")?;
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

async fn judge(program: &str, options: &[&str], what: &Path) -> Result<String> {
    let mut command = Command::new(host_packages::find(program)?);
    command.args(options).arg(what);
    let said = output(command).await.with_context(|| format!("what {program} says of the disk"))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn extract(disk: &Path, role: Role, to: &Path) -> Result<()> {
    let place = base::place(role)?;
    let mut file = File::open(disk).context("open the disk")?;
    file.seek(SeekFrom::Start(place.offset)).context("read the disk")?;
    let mut copy = File::create(to).context("make a copy of a partition")?;
    std::io::copy(&mut file.take(place.length), &mut copy).context("copy a partition")?;
    Ok(())
}
