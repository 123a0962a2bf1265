//! A model of systemd-boot: reads the real boot partition with mtools, not with the code that wrote it, chooses as
//! systemd-boot does, and counts a try down before it starts anything.

use std::{
    cmp::Reverse,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use evenkeel_node_agent::disk::Disk;
use evenkeel_node_agent_core::layout::Role;

const ENTRIES: &str = "loader/entries";
const SUFFIX: &str = ".conf";

/// An entry that was chosen, after its try was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its file's name before it was counted.
    pub file: String,
    /// Content of the kernel's file; absent when there is none.
    pub kernel: Option<String>,
    /// Whether its initrd is there.
    pub initrd: bool,
    /// The kernel's command line.
    pub options: String,
}

/// A type 1 entry, as the UAPI Boot Loader Specification has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: String,
    tries: Option<(u32, u32)>,
    sort_key: String,
    version: u64,
    linux: String,
    initrd: String,
    options: String,
}

/// What the firmware and systemd-boot do at power-on.
pub fn choose(disk: &Path) -> Result<Choice> {
    let esp = Esp::of(disk)?;
    let mut entries = esp.entries()?;
    ensure!(!entries.is_empty(), "{} has no boot entry: this machine does not boot any more", disk.display());
    // As boot_entry_compare: entries whose tries are used up come last, then by sort key, then the newest version.
    entries.sort_by_key(|entry| {
        let used_up = entry.tries.is_some_and(|(left, _)| left == 0);
        (used_up, entry.sort_key.clone(), Reverse(entry.version), entry.id.clone())
    });
    let entry = entries.swap_remove(0);
    let file = entry.file();
    if let Some((left @ 1.., done)) = entry.tries {
        let counted = Entry { tries: Some((left - 1, done + 1)), ..entry.clone() };
        esp.rename(&format!("{ENTRIES}/{file}"), &format!("{ENTRIES}/{}", counted.file()))?;
    }
    let kernel = esp.read(&entry.linux).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let initrd = esp.read(&entry.initrd).is_ok_and(|bytes| !bytes.is_empty());
    Ok(Choice { file, kernel, initrd, options: entry.options })
}

/// Names of the entries' files.
pub fn entry_files(disk: &Path) -> Result<Vec<String>> {
    let mut files: Vec<String> = Esp::of(disk)?.entries()?.iter().map(Entry::file).collect();
    files.sort();
    Ok(files)
}

impl Entry {
    fn file(&self) -> String {
        match self.tries {
            None => format!("{}{SUFFIX}", self.id),
            Some((left, 0)) => format!("{}+{left}{SUFFIX}", self.id),
            Some((left, done)) => format!("{}+{left}-{done}{SUFFIX}", self.id),
        }
    }

    fn parse(file: &str, text: &str) -> Result<Self> {
        let stem = file.strip_suffix(SUFFIX).context("the name ends in .conf")?;
        let (id, tries) = match stem.split_once('+') {
            None => (stem, None),
            Some((id, count)) => {
                let (left, done) = count.split_once('-').unwrap_or((count, "0"));
                (id, Some((left.parse()?, done.parse()?)))
            }
        };
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.map(|value| value.trim().to_owned()).with_context(|| format!("{file} has no `{key}`"))
        };
        Ok(Self {
            id: id.to_owned(),
            tries,
            sort_key: value("sort-key")?,
            version: value("version")?.parse()?,
            linux: value("linux")?,
            initrd: value("initrd")?,
            options: value("options")?,
        })
    }
}

/// The boot partition of a disk file, in mtools' way of naming it.
struct Esp(String);

impl Esp {
    fn of(disk: &Path) -> Result<Self> {
        let offset = Disk::open(disk)?.partition(Role::Esp)?.offset;
        Ok(Self(format!("{}@@{offset}", disk.display())))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let listing = self.mtools("mdir", &["-b", &format!("::/{ENTRIES}/")])?;
        let listing = String::from_utf8_lossy(&listing).into_owned();
        let files = listing.lines().filter_map(|line| line.trim().rsplit('/').next());
        files
            .filter(|file| file.ends_with(SUFFIX))
            .map(|file| {
                let text = self.read(&format!("{ENTRIES}/{file}"))?;
                Entry::parse(file, &String::from_utf8_lossy(&text))
            })
            .collect()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.mtools("mtype", &[&format!("::/{}", path.trim_start_matches('/'))])
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.mtools("mren", &[&format!("::/{from}"), &format!("::/{to}")]).map(|_| ())
    }

    fn mtools(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(program)
            .args(["-i", &self.0])
            .args(arguments)
            .env("MTOOLS_SKIP_CHECK", "1")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {program} (Debian: package mtools)"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }
}
