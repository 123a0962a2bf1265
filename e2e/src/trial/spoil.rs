//! Makes what is wrong on a disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use evenkeel_node_agent_core::layout::Role;
use tokio::process::Command;

use super::{
    base::{self, Host},
    case::{Loader, Spoil, Trial},
    slot::Slot,
};
use crate::process::output;

/// Started late in the boot, so that the kernel and the initrd have long done their work.
const LATE_PROGRAM: &str = "/usr/lib/systemd/systemd-networkd";
const FIRST_PROCESS: &str = "/usr/lib/systemd/systemd";
/// GRUB's entry of slot b.
const GRUB_ENTRY: &str = "evenkeel/grub/b.cfg";
const SPOILED: &str = "evenkeel/spoiled";
const GRUB_CONFIG: &str = "EFI/debian/grub.cfg";
/// The boot partition's, and more than it has in all.
const CLUSTER: u64 = 512;
const LARGE: u64 = 1 << 30;
/// Somebody's own: it boots slot a and never writes.
const OTHER_GRUB_CONFIG: &str = "source /evenkeel/grub/a.cfg\nboot\n";

/// Spoils a case's disk, on which slot b was activated. Uses `folder` for what it takes from the boot partition.
pub(super) async fn spoil(host: &Host, disk: &Path, folder: &Path, trial: Trial) -> Result<()> {
    let slot = || Slot::find(&host.agent, disk, "b");
    let entry = match trial.loader {
        Loader::SystemdBoot | Loader::SystemdBootOwnKeys => {
            format!("loader/entries/evenkeel-b+{}.conf", trial.case.tries)
        }
        Loader::Grub | Loader::GrubOnBios | Loader::GrubByShim => GRUB_ENTRY.to_owned(),
    };
    let esp = Esp { disk, folder: folder.to_owned(), entry };
    match trial.case.spoil {
        Spoil::Nothing => Ok(()),
        Spoil::FirstBlock => slot().await?.flip(0),
        Spoil::LateProgram => {
            let slot = slot().await?;
            slot.flip(slot.file_byte(LATE_PROGRAM)?)
        }
        Spoil::FirstProcess => {
            let slot = slot().await?;
            slot.flip(slot.file_byte(FIRST_PROCESS)?)
        }
        Spoil::RootFolder => {
            let slot = slot().await?;
            slot.flip(slot.root_inode()?)
        }
        Spoil::Initrd => esp.replace("initrd", |bytes| flip_the_middle(bytes)).await,
        Spoil::InitrdHangs => {
            let hook = hanging_hook(folder).await?;
            esp.replace("initrd", |bytes| append_archive(bytes, &hook)).await
        }
        Spoil::Kernel => {
            let flip = |bytes: &mut Vec<u8>| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            };
            esp.replace("linux", flip).await
        }
        Spoil::KernelUnsigned => esp.replace("linux", drop_signature).await,
        Spoil::KernelMissing => esp.rename("linux", "evenkeel/nothing").await,
        Spoil::BootPartitionFull => esp.fill().await,
        Spoil::EntryReadOnly => esp.read_only().await,
        Spoil::GrubNeverWrites => esp.write(GRUB_CONFIG, OTHER_GRUB_CONFIG.as_bytes()).await,
    }
}

/// A mebibyte of wrong bytes: more than one decoder could take for a small mistake.
fn flip_the_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().take(1 << 20).for_each(|byte| *byte = !*byte);
}

/// Takes the signature from the end of a program for UEFI of 64 bits, and from its header what says where it was.
fn drop_signature(program: &mut Vec<u8>) {
    let number = |at: usize| {
        let four = [program[at], program[at + 1], program[at + 2], program[at + 3]];
        u32::from_le_bytes(four) as usize
    };
    // The fifth of the directories, which begin 136 bytes behind the header's begin.
    let directory = number(0x3c) + 136 + 4 * 8;
    let (signature, length) = (number(directory), number(directory + 4));
    assert!(length > 0 && signature + length == program.len(), "the kernel of the image has no signature");
    program.truncate(signature);
    program[directory..directory + 8].fill(0);
}

const HANG: &str = "\
echo \"trial: hangs beside $(cat /sys/class/watchdog/watchdog0/identity)\" > /dev/console
while :; do sleep 1; done
";

/// Where an uncompressed archive may begin in an initrd: elsewhere the kernel takes it for a broken compressed one, and
/// goes on without it (`unpack_to_rootfs` in Linux's `init/initramfs.c`).
const ARCHIVE_ALIGNMENT: usize = 4;

fn append_archive(initrd: &mut Vec<u8>, archive: &[u8]) {
    initrd.resize(initrd.len().next_multiple_of(ARCHIVE_ALIGNMENT), 0);
    initrd.extend(archive);
}

/// An archive that the kernel unpacks over the initrd's own: one more hook of dracut's, which
/// names the watchdog and never ends.
async fn hanging_hook(folder: &Path) -> Result<Vec<u8>> {
    let root = folder.join("hook");
    let hooks = root.join("usr/lib/dracut/hooks/pre-mount");
    fs::create_dir_all(&hooks).context("make a folder for a hook")?;
    fs::write(hooks.join("00-hang.sh"), HANG).context("write a hook")?;
    let mut command = Command::new("sh");
    command.args(["-euc", r#"cd "$1"; find . | cpio --create --format=newc --quiet"#, "sh"]).arg(&root);
    output(command).await
}

/// The boot partition of a disk file, by mtools.
struct Esp<'a> {
    disk: &'a Path,
    folder: PathBuf,
    /// Slot b's boot entry.
    entry: String,
}

impl Esp<'_> {
    /// Lets slot b's entry name another file for `key`: a changed copy. Both slots may share the one that is there.
    async fn replace(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut bytes = self.read(&self.named(key).await?).await?;
        change(&mut bytes);
        self.write(SPOILED, &bytes).await?;
        self.rename(key, SPOILED).await
    }

    /// Lets slot b's entry have another name for `key`.
    async fn rename(&self, key: &str, other: &str) -> Result<()> {
        let named = self.named(key).await?;
        let entry = self.entry().await?.replace(&format!("{key} /{named}"), &format!("{key} /{other}"));
        self.write(&self.entry, entry.as_bytes()).await
    }

    /// What slot b's entry names for `key`.
    async fn named(&self, key: &str) -> Result<String> {
        let entry = self.entry().await?;
        // GRUB's is a comment in a script.
        let mut lines = entry.lines().map(|line| line.trim_start_matches("# "));
        let named = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" /"));
        named.map(str::to_owned).with_context(|| format!("the boot entry names no {key}"))
    }

    async fn entry(&self) -> Result<String> {
        String::from_utf8(self.read(&self.entry).await?).context("understand the boot entry")
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let copy = self.folder.join("from-esp");
        let mut command = self.mcopy()?;
        command.arg(format!("::/{path}")).arg(&copy);
        output(command).await.with_context(|| format!("read {path} from the boot partition"))?;
        fs::read(&copy).context("read a copy")
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let copy = self.folder.join("to-esp");
        fs::write(&copy, bytes).context("write a copy")?;
        let mut command = self.mcopy()?;
        command.arg(&copy).arg(format!("::/{path}"));
        output(command).await.map(|_| ()).with_context(|| format!("write {path} to the boot partition"))
    }

    /// Writes files, each half as long as the one before, as long as they fit: in the end not one cluster is free.
    async fn fill(&self) -> Result<()> {
        let copy = self.folder.join("to-esp");
        for size in (CLUSTER.ilog2()..LARGE.ilog2()).rev().map(|bits| 1_u64 << bits) {
            fs::File::create(&copy).and_then(|file| file.set_len(size)).context("write a copy")?;
            let mut command = self.mcopy()?;
            command.arg(&copy).arg(format!("::/filler-{size}"));
            // One that does not fit is left out.
            let _ = output(command).await;
        }
        Ok(())
    }

    /// Marks slot b's entry as one that is not written, which firmware heeds.
    async fn read_only(&self) -> Result<()> {
        let mut command = Command::new("mattrib");
        command.arg("-i").arg(self.image()?).args(["+r", &format!("::/{}", self.entry)]);
        output(command).await.map(|_| ()).context("mark the boot entry")
    }

    fn mcopy(&self) -> Result<Command> {
        let mut command = Command::new("mcopy");
        command.args(["-D", "o", "-n", "-o", "-i"]).arg(self.image()?);
        Ok(command)
    }

    fn image(&self) -> Result<String> {
        Ok(format!("{}@@{}", self.disk.display(), base::place(Role::Esp)?.offset))
    }
}
