//! One machine, no cluster, and slots in which a single byte is wrong: nothing that does not hash up to a slot's root hash
//! is run, and the machine ends on the slot that is whole without anybody's help.

mod boots;
mod slot;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use crate::{
    binaries::{self, Binaries, Binary},
    machine::{self, Machine},
    os_image,
    process::{Scratch, output},
    progress,
    registry::{self, Registry},
    tools::{self, Tool},
    wait,
};

use boots::Boot;
use slot::Slot;

const DISK_SIZE: &str = "4GiB";
const SLOT_SIZE: &str = "1GiB";
/// Two boots under emulation, of which the first gets as far as its damage; five times slower than here.
const LIMIT: Duration = Duration::from_mins(6);
/// Started late in the boot, so that the kernel and the initrd have long done their work.
const LATE_PROGRAM: &str = "/usr/lib/systemd/systemd-networkd";

/// Where slot b is damaged, and whether it is on trial or kept.
struct Case {
    name: &'static str,
    byte: u64,
    kept: bool,
}

/// Runs every case. An error if the machine came to anything but the whole slot.
pub async fn run() -> Result<()> {
    let scratch = Scratch::new("damage")?;
    let (agent, disk) = prepare(scratch.path()).await?;
    let slot = Slot::find(&agent, &disk, "b").await?;
    let cases = [
        Case { name: "a program of a slot on trial", byte: slot.file_byte(LATE_PROGRAM)?, kept: false },
        Case { name: "the root folder of a slot on trial", byte: slot.root_inode()?, kept: false },
        Case { name: "the root folder of a kept slot", byte: slot.root_inode()?, kept: true },
    ];
    for (number, case) in (1..).zip(cases) {
        slot.flip(case.byte)?;
        command(&agent, &disk, &["activate", "--slot", "b", "--tries", "1"]).await?;
        if case.kept {
            command(&agent, &disk, &["commit", "--slot", "b"]).await?;
        }
        let folder = scratch.path().join(format!("machine-{number}"));
        let waiting = format!("boot with a wrong byte in {}", case.name);
        let boots = progress::long(&waiting, boot(&disk, &folder)).await?;
        let expected = [
            Boot { slot: "b".into(), damage_found: true, up: false },
            Boot { slot: "a".into(), damage_found: false, up: true },
        ];
        ensure!(boots == expected, "{}: the machine booted {boots:?}", case.name);
        progress::step("the damage was found, and the machine is on slot a");
        slot.flip(case.byte)?;
    }
    Ok(())
}

/// A disk with version 1 in slot a, which boots, and version 2 in slot b.
async fn prepare(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    machine::prepare_host().await?;
    let tools = tools::ensure(&[Tool::Kubelet, Tool::Containerd, Tool::ContainerdShim]).await?;
    let binaries: Binaries = binaries::build().await?;
    let registry = Registry::start(&folder.join("registry"), registry::Options::default()).await?;
    os_image::publish(&registry, &tools, &binaries).await?;
    let (agent, disk) = (binaries.path(Binary::Agent), folder.join("disk.img"));
    let image = |tag| format!("{}/{}:{tag}", registry.address(), os_image::REPOSITORY);
    let sizes = ["--size", DISK_SIZE, "--slot-size", SLOT_SIZE, "--plain-http"];
    progress::step("install version 1 into slot a, and stage version 2 into slot b");
    command(&agent, &disk, &[&["install", &image("1")], &sizes[..]].concat()).await?;
    command(&agent, &disk, &["stage", &image("2"), "--slot", "b", "--plain-http"]).await?;
    Ok((agent, disk))
}

async fn command(agent: &Path, disk: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(agent);
    command.args(arguments).arg("--disk").arg(disk);
    output(command).await
}

/// Lets a machine boot until a system is up. Gives every boot until then.
async fn boot(disk: &Path, folder: &Path) -> Result<Vec<Boot>> {
    let mut machine = Machine::start("damaged", disk, folder)?;
    let console = machine.console();
    let came_up = wait::until(LIMIT, async || {
        machine.tend()?;
        let boots = boots::read(&console)?;
        match boots.last() {
            Some(last) if last.up => Ok(boots),
            _ => bail!("no system is up after {boots:?}"),
        }
    });
    let came_up = came_up.await;
    came_up.with_context(|| format!("the end of its console:\n{}", machine.console_tail()))
}
