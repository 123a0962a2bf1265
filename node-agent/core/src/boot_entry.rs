//! Boot entries of type 1 (UAPI Boot Loader Specification) with systemd's boot counting in the file name.

use std::fmt::Write as _;

use crate::kernel_options;

/// Folder of the entries on the ESP.
pub const ENTRIES_FOLDER: &str = "loader/entries";
/// Begins the word of the kernel command line with the GUID of the slot's partition.
pub const PART_UUID: &str = "evenkeel.partuuid=";
/// The mapping that the initrd makes of the slot, with dm-verity; it comes first of our words.
const ROOT: &str = "root=/dev/mapper/evenkeel-root";
/// Lets the kernel use the second copy of the partition table where the first one is damaged; it would not otherwise.
const EITHER_TABLE: &str = "gpt";
const PREFIX: &str = "evenkeel-";
const SUFFIX: &str = ".conf";

/// Boots that a counted entry has had and has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Tries left; 0 means that the loader takes the entry only when there is no other.
    pub left: u32,
    /// Tries used.
    pub done: u32,
}

/// The name of an entry's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryName {
    /// The slot that it boots.
    pub slot: String,
    /// The count; absent on an entry that is kept.
    pub tries: Option<Tries>,
}

impl EntryName {
    /// `evenkeel-<slot>[+LEFT[-DONE]].conf`.
    pub fn encode(&self) -> String {
        let mut name = format!("{PREFIX}{}", self.slot);
        if let Some(Tries { left, done }) = self.tries {
            write!(name, "+{left}").expect("writing to a string cannot fail");
            if done > 0 {
                write!(name, "-{done}").expect("writing to a string cannot fail");
            }
        }
        name + SUFFIX
    }

    /// The reverse; `None` for files that are not ours.
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (slot, tries) = match stem.split_once('+') {
            None => (stem, None),
            Some((slot, count)) => {
                let (left, done) = count.split_once('-').unwrap_or((count, "0"));
                (slot, Some(Tries { left: number(left)?, done: number(done)? }))
            }
        };
        let valid = !slot.is_empty() && slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        valid.then(|| Self { slot: slot.to_owned(), tries })
    }
}

/// What an entry's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBody {
    /// Line for the boot menu.
    pub title: String,
    /// Rises with each entry that is written; the loader prefers the highest.
    pub generation: u64,
    /// The slot.
    pub slot: String,
    /// Digest of the slot's image.
    pub digest: String,
    /// GUID of the slot's partition.
    pub part_uuid: String,
    /// Root of the hash tree that lies behind the slot's file system, lower-case hex.
    pub root_hash: String,
    /// Blocks of the file system, 4096 bytes each; the hash tree's first block is the next.
    pub blocks: u64,
    /// The kernel on the ESP, from its root with a leading `/`.
    pub linux: String,
    /// The initrd on the ESP, from its root with a leading `/`.
    pub initrd: String,
    /// Kernel options that the image asks for, as [`kernel_options::of_image`] gives them.
    pub kernel_options: String,
}

impl EntryBody {
    /// The kernel command line.
    pub fn options(&self) -> String {
        let Self { slot, digest, part_uuid, root_hash, blocks, kernel_options, .. } = self;
        let place = format!(
            "{ROOT} {EITHER_TABLE} {PART_UUID}{part_uuid} evenkeel.blocks={blocks} evenkeel.roothash={root_hash} evenkeel.slot={slot} \
             evenkeel.digest={digest}"
        );
        kernel_options::join(kernel_options, &place)
    }

    /// The file's text.
    pub fn encode(&self) -> String {
        let Self { title, generation, linux, initrd, .. } = self;
        let options = self.options();
        let title: String = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!(
            "title {title}\nsort-key evenkeel\nversion {generation}\nlinux {linux}\ninitrd {initrd}\noptions \
             {options}\n"
        )
    }

    /// The reverse; `None` when a key that we always write is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned)
        };
        let options = value("options")?;
        let (of_image, ours) = split(&options)?;
        let option = |key: &str| ours.split(' ').find_map(|word| word.strip_prefix(key)).map(str::to_owned);
        Some(Self {
            title: value("title")?,
            generation: value("version")?.parse().ok()?,
            slot: option("evenkeel.slot=")?,
            digest: option("evenkeel.digest=")?,
            part_uuid: option(PART_UUID)?,
            root_hash: option("evenkeel.roothash=")?,
            blocks: option("evenkeel.blocks=")?.parse().ok()?,
            linux: value("linux")?,
            initrd: value("initrd")?,
            kernel_options: of_image.trim_end().to_owned(),
        })
    }
}

/// What stands before and behind the word [`ROOT`]: the image's options, and ours.
fn split(options: &str) -> Option<(&str, &str)> {
    options.match_indices(ROOT).map(|(at, _)| (&options[..at], &options[at + ROOT.len()..])).find(
        |(before, behind)| {
            (before.is_empty() || before.ends_with(' ')) && (behind.is_empty() || behind.starts_with(' '))
        },
    )
}

/// An entry as found on the ESP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// Its file's name.
    pub name: EntryName,
    /// What it says.
    pub body: EntryBody,
}

/// The entry that the loader takes next: among those with tries left the highest generation, as systemd-boot sorts
/// them when `loader.conf` names no default.
pub fn next_boot(entries: &[BootEntry]) -> Option<&BootEntry> {
    let usable = |entry: &&BootEntry| entry.name.tries.is_none_or(|tries| tries.left > 0);
    entries.iter().filter(usable).max_by_key(|entry| entry.body.generation)
}

/// The generation for an entry that is to be preferred to all of `entries`.
pub fn next_generation(entries: &[BootEntry]) -> u64 {
    entries.iter().map(|entry| entry.body.generation).max().unwrap_or(0).saturating_add(1)
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn body(slot: &str, generation: u64) -> EntryBody {
        EntryBody {
            title: "Evenkeel 1.0 (slot a)".into(),
            generation,
            slot: slot.into(),
            digest: "sha256:00ff".into(),
            part_uuid: "0d0b7f1e-8f3e-4f0e-9f5a-0c5a3c0f7b11".into(),
            root_hash: "5e".repeat(32),
            blocks: 25_600,
            linux: "/evenkeel/vmlinuz-1".into(),
            initrd: "/evenkeel/initrd-1".into(),
            kernel_options: String::new(),
        }
    }

    #[test]
    fn names_as_systemd_boot_writes_them() {
        let tries = |left, done| Some(Tries { left, done });
        for (name, slot, expected) in [
            ("evenkeel-a.conf", "a", None),
            ("evenkeel-b+3.conf", "b", tries(3, 0)),
            ("evenkeel-b+2-1.conf", "b", tries(2, 1)),
            ("evenkeel-b+0-3.conf", "b", tries(0, 3)),
        ] {
            let parsed = EntryName::parse(name).unwrap();
            assert_eq!((parsed.slot.as_str(), parsed.tries), (slot, expected), "{name}");
            assert_eq!(parsed.encode(), name);
        }
        for foreign in [
            "debian.conf",
            "evenkeel-.conf",
            "evenkeel-b+.x.conf",
            "evenkeel-b+-1.conf",
            "evenkeel-a.conf.new",
        ] {
            assert_eq!(EntryName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_trial_comes_first_until_its_tries_are_used_up() {
        let entry = |slot: &str, generation, tries| BootEntry {
            name: EntryName { slot: slot.into(), tries },
            body: body(slot, generation),
        };
        let kept = entry("a", 1, None);
        let trial = entry("b", 2, Some(Tries { left: 1, done: 2 }));
        let used_up = entry("b", 2, Some(Tries { left: 0, done: 3 }));
        assert_eq!(next_boot(&[kept.clone(), trial.clone()]), Some(&trial));
        assert_eq!(next_boot(&[kept.clone(), used_up]), Some(&kept));
    }

    proptest! {
        #[test]
        fn names_come_back(slot in "[a-z0-9]{1,9}", tries in proptest::option::of((0u32..100, 0u32..100))) {
            let name = EntryName { slot, tries: tries.map(|(left, done)| Tries { left, done }) };
            prop_assert_eq!(EntryName::parse(&name.encode()), Some(name));
        }

        #[test]
        fn bodies_come_back(title in "[^ ][ -~]{0,40}[^ ]", generation: u64, options: String) {
            let mut body = body("a", generation);
            body.kernel_options = kernel_options::of_image(&options);
            body.title = title.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
            prop_assert_eq!(EntryBody::parse(&body.encode()), Some(body));
        }

        #[test]
        fn nothing_from_outside_panics(name: String, text: String) {
            let _ = (EntryName::parse(&name), EntryBody::parse(&text));
        }
    }
}
