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
    case::Spoil,
    slot::Slot,
};
use crate::process::output;

/// Started late in the boot, so that the kernel and the initrd have long done their work.
const LATE_PROGRAM: &str = "/usr/lib/systemd/systemd-networkd";
/// systemd-boot's entry of a slot that may be tried once.
const ENTRY: &str = "loader/entries/evenkeel-b+1.conf";
const SPOILED: &str = "evenkeel/spoiled";
const GRUB_CONFIG: &str = "EFI/debian/grub.cfg";
/// Somebody's own: it boots slot a and never writes.
const OTHER_GRUB_CONFIG: &str = "source /evenkeel/grub/a.cfg\nboot\n";

/// Spoils a disk on which slot b was activated. Uses `folder` for what it takes from the boot partition.
pub(super) async fn spoil(host: &Host, disk: &Path, folder: &Path, spoil: Spoil) -> Result<()> {
    let slot = || Slot::find(&host.agent, disk, "b");
    let esp = Esp { disk, folder: folder.to_owned() };
    match spoil {
        Spoil::Nothing => Ok(()),
        Spoil::LateProgram => {
            let slot = slot().await?;
            slot.flip(slot.file_byte(LATE_PROGRAM)?)
        }
        Spoil::RootFolder => {
            let slot = slot().await?;
            slot.flip(slot.root_inode()?)
        }
        Spoil::Initrd => esp.replace("initrd", |bytes| flip_the_middle(bytes)).await,
        Spoil::InitrdHangs => {
            let hook = hanging_hook(folder).await?;
            esp.replace("initrd", |bytes| bytes.extend(hook)).await
        }
        Spoil::GrubNeverWrites => esp.write(GRUB_CONFIG, OTHER_GRUB_CONFIG.as_bytes()).await,
    }
}

/// A mebibyte of wrong bytes: more than one decoder could take for a small mistake.
fn flip_the_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().take(1 << 20).for_each(|byte| *byte = !*byte);
}

/// An archive that the kernel unpacks over the initrd's own: one more hook of dracut's, which never ends.
async fn hanging_hook(folder: &Path) -> Result<Vec<u8>> {
    let root = folder.join("hook");
    let hooks = root.join("usr/lib/dracut/hooks/pre-mount");
    fs::create_dir_all(&hooks).context("make a folder for a hook")?;
    fs::write(hooks.join("00-hang.sh"), "while :; do sleep 1; done\n").context("write a hook")?;
    let mut command = Command::new("sh");
    command.args(["-euc", r#"cd "$1"; find . | cpio --create --format=newc --quiet"#, "sh"]).arg(&root);
    output(command).await
}

/// The boot partition of a disk file, by mtools.
struct Esp<'a> {
    disk: &'a Path,
    folder: PathBuf,
}

impl Esp<'_> {
    /// Lets slot b's entry name another file for `key`: a changed copy. Both slots may share the one that is there.
    async fn replace(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let entry = String::from_utf8(self.read(ENTRY).await?).context("understand the boot entry")?;
        let named = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" /"));
        let named = named.with_context(|| format!("the boot entry names no {key}"))?;
        let mut bytes = self.read(named).await?;
        change(&mut bytes);
        self.write(SPOILED, &bytes).await?;
        let other = entry.replace(&format!("{key} /{named}"), &format!("{key} /{SPOILED}"));
        self.write(ENTRY, other.as_bytes()).await
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let copy = self.folder.join("from-esp");
        let mut command = self.mtools("mcopy")?;
        command.arg(format!("::/{path}")).arg(&copy);
        output(command).await.with_context(|| format!("read {path} from the boot partition"))?;
        fs::read(&copy).context("read a copy")
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let copy = self.folder.join("to-esp");
        fs::write(&copy, bytes).context("write a copy")?;
        let mut command = self.mtools("mcopy")?;
        command.arg(&copy).arg(format!("::/{path}"));
        output(command).await.map(|_| ()).with_context(|| format!("write {path} to the boot partition"))
    }

    fn mtools(&self, program: &str) -> Result<Command> {
        let offset = base::place(Role::Esp)?.offset;
        let mut command = Command::new(program);
        command.args(["-D", "o", "-n", "-o", "-i"]).arg(format!("{}@@{offset}", self.disk.display()));
        Ok(command)
    }
}
