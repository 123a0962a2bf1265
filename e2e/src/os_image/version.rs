//! What makes the versions of the demo's operating system differ: a small layer on top.

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType};

use crate::archive;

/// The same for all that is built from one checkout, so that an image's digest depends on its content alone.
const MODIFIED: u64 = 1_700_000_000;

/// One version.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// The image's tag, and `VERSION_ID` of its os-release.
    pub tag: &'static str,
    pub(super) entries: &'static [Entry],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    File { path: &'static str, content: &'static str },
    Program { path: &'static str, content: &'static str },
    Link { path: &'static str, target: &'static str },
}

/// All versions.
pub const VERSIONS: [Version; 4] = [
    Version { tag: "1", entries: &[] },
    Version {
        tag: "2",
        entries: &[
            Entry::File {
                path: "usr/share/evenkeel-demo/added",
                content: "This file came with version 2.\n",
            },
            Entry::File {
                path: "usr/share/evenkeel-demo/changed",
                content: "Version 2 changed this file.\n",
            },
            // A whiteout: the lower layers' file of this name is gone.
            Entry::File { path: "usr/share/evenkeel-demo/.wh.removed", content: "" },
        ],
    },
    Version { tag: "3-broken", entries: &[CHECK_FAILS] },
    Version { tag: "4-panics", entries: &[PANICS] },
];

/// A health check that says no.
pub(super) const CHECK_FAILS: Entry = Entry::Program {
    path: "usr/lib/evenkeel/health.d/10-storage",
    content: "#!/bin/sh\necho 'the storage driver of this version does not load' >&2\nexit 1\n",
};
/// The kernel panics when the first process ends.
pub(super) const PANICS: Entry = Entry::Link { path: "usr/lib/systemd/systemd", target: "/usr/bin/false" };

impl Version {
    /// The layer as a tar archive.
    pub fn layer(&self) -> Result<Vec<u8>> {
        let tag = self.tag;
        let release = format!(
            "ID=evenkeel-demo\nID_LIKE=debian\nNAME=\"Evenkeel demo\"\nVERSION_ID={tag}\nPRETTY_NAME=\"Evenkeel demo \
             {tag}\"\n"
        );
        let mut archive = Builder::new(Vec::new());
        append(&mut archive, "usr/lib/os-release", 0o644, release.as_bytes())?;
        for entry in self.entries {
            match entry {
                Entry::File { path, content } => append(&mut archive, path, 0o644, content.as_bytes())?,
                Entry::Program { path, content } => append(&mut archive, path, 0o755, content.as_bytes())?,
                Entry::Link { path, target } => {
                    let mut header = archive::header(EntryType::Symlink, 0o777, 0, MODIFIED);
                    archive.append_link(&mut header, path, target).context("add a link to a layer")?;
                }
            }
        }
        archive.into_inner().context("finish a layer")
    }
}

/// A layer with one file.
pub(super) fn file_layer(path: &str, content: &[u8]) -> Result<Vec<u8>> {
    files_layer(&[(path, content)])
}

/// A layer with some files.
pub(super) fn files_layer(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut archive, path, 0o644, content)?;
    }
    archive.into_inner().context("finish a layer")
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = archive::header(EntryType::Regular, mode, content.len() as u64, MODIFIED);
    archive.append_data(&mut header, path, content).context("add a file to a layer")
}
