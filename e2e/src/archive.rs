//! Tar archives of folders, and their compression.

use std::{
    fs::File,
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tar::{EntryType, Header};
use tokio::{process::Command, task::spawn_blocking};

use crate::process::output;

/// Fast, and within a few percent of what the next levels save.
const ZSTD_LEVEL: i32 = 3;

/// How folders are packed: part of the identity of what is made of them.
pub const PACKING: [&str; 7] = [
    "--create",
    "--sort=name",
    "--numeric-owner",
    "--format=pax",
    "--pax-option=delete=atime,delete=ctime",
    "--xattrs",
    // An overlay's notes to itself are no part of what is in it.
    "--xattrs-exclude=trusted.overlay.*",
];

/// Compresses a file with zstd.
pub async fn compress(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    let work = move || -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(File::create(&to)?, ZSTD_LEVEL)?;
        io::copy(&mut File::open(&from)?, &mut encoder)?;
        encoder.finish()?.sync_all()
    };
    spawn_blocking(work).await.context("the thread that compresses ended")?.context("compress a layer")
}

/// Packs a folder with owners, modes, times and attributes.
pub async fn pack(folder: &Path, archive: &Path) -> Result<()> {
    refuse_devices(folder)?;
    let mut command = Command::new("tar");
    command.args(PACKING).arg("--file").arg(archive).arg("--directory").arg(folder).arg(".");
    output(command).await.map(|_| ())
}

/// Unpacks an archive into a folder, which is made.
pub async fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut command = Command::new("tar");
    command.args([
        "--extract",
        "--numeric-owner",
        "--preserve-permissions",
        "--xattrs",
        "--xattrs-include=*",
    ]);
    command.arg("--file").arg(archive).arg("--directory").arg(folder);
    output(command).await.map(|_| ())
}

/// The header of an entry that root owns. `modified`, in seconds since 1970, is not the build's time, so that what is made
/// depends on its content alone.
pub fn header(kind: EntryType, mode: u32, size: u64, modified: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header.set_size(size);
    header
}

/// A character device in the upper folder of an overlay is a file that was removed, which a layer has to say in
/// another way.
fn refuse_devices(folder: &Path) -> Result<()> {
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let listing = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in listing {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_char_device() {
                bail!("{} was removed while the image was built", entry.path().display());
            }
        }
    }
    Ok(())
}
