//! What firmware and boot loader see of a boot partition: read with no code of the agent's and no library, so that what
//! only our own reader understands does not count. FAT32 as in Microsoft's specification; entries of type 1.

use std::collections::BTreeMap;

use evenkeel_node_agent::disk::Window;

use super::grub;

const ENTRIES: &str = "loader/entries";
const DELETED: u8 = 0xE5;
const LONG_NAME: u8 = 0x0F;
const VOLUME: u8 = 8;
const DIRECTORY: u8 = 16;

/// An entry as systemd-boot reads it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its file's name.
    pub file: String,
    /// Tries left and done, if they are counted.
    pub tries: Option<(u32, u32)>,
    pub slot: String,
    pub digest: String,
    /// What its files hold; absent when they are not there.
    pub kernel: Option<Vec<u8>>,
    pub initrd: Option<Vec<u8>>,
    /// By which entries are sorted, as the loader does.
    pub order: (bool, String, std::cmp::Reverse<u64>, String),
}

/// Everything on the partition: each file's content by its path, lower-case.
pub struct Fat<'a> {
    window: &'a Window,
    table: u64,
    data: u64,
    cluster: usize,
    root: u32,
}

pub type Files = BTreeMap<String, Vec<u8>>;

impl<'a> Fat<'a> {
    pub fn of(window: &'a Window) -> Self {
        let mut boot = [0; 512];
        window.read_at(0, &mut boot).unwrap();
        let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| u32::from_le_bytes(boot[at..at + 4].try_into().unwrap());
        let table = short(14) * short(11);
        let data = table + u64::from(boot[16]) * u64::from(long(36)) * short(11);
        let cluster = usize::from(boot[13]) * usize::try_from(short(11)).unwrap();
        Self { window, table, data, cluster, root: long(44) }
    }

    /// All files; an error if a name leads to clusters that are free, shared, or fewer than its size needs.
    pub fn files(&self) -> Result<Files, String> {
        let mut files = Files::new();
        let mut owners = BTreeMap::new();
        let mut open = vec![(String::new(), self.root)];
        while let Some((path, first)) = open.pop() {
            let content = self.content(&path, first, &mut owners)?;
            for (name, is_directory, first, size) in directory(&content) {
                let path = format!("{path}/{}", name.to_lowercase());
                if is_directory {
                    open.push((path, first));
                    continue;
                }
                let mut content = self.content(&path, first, &mut owners)?;
                if content.len() < size {
                    return Err(format!("{path} has {size} bytes, and clusters for {}", content.len()));
                }
                content.truncate(size);
                files.insert(path.trim_start_matches('/').to_owned(), content);
            }
        }
        Ok(files)
    }

    /// The file's first byte on the partition.
    pub fn place(&self, wanted: &str) -> Result<u64, String> {
        let (mut folder, mut parts) = (self.root, wanted.split('/').peekable());
        while let Some(part) = parts.next() {
            let content = self.content(wanted, folder, &mut BTreeMap::new())?;
            let found = directory(&content).into_iter().find(|(name, ..)| name.to_lowercase() == part);
            let (_, _, first, _) = found.ok_or_else(|| format!("{wanted} is not there"))?;
            if parts.peek().is_none() {
                return Ok(self.data + (u64::from(first) - 2) * self.cluster as u64);
            }
            folder = first;
        }
        Err(format!("{wanted} is not a file"))
    }

    fn content(&self, path: &str, first: u32, owners: &mut BTreeMap<u32, String>) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let mut cluster = first;
        while cluster != 0 && cluster < 0x0FFF_FFF8 {
            if let Some(other) = owners.insert(cluster, path.to_owned()) {
                return Err(format!("{path} and {other} share cluster {cluster}"));
            }
            let from = content.len();
            content.resize(from + self.cluster, 0);
            let place = self.data + (u64::from(cluster) - 2) * self.cluster as u64;
            self.window.read_at(place, &mut content[from..]).map_err(|error| format!("{path}: {error}"))?;
            let mut next = [0; 4];
            self.window.read_at(self.table + u64::from(cluster) * 4, &mut next).unwrap();
            let next = u32::from_le_bytes(next) & 0x0FFF_FFFF;
            if next == 0 {
                return Err(format!("{path} has cluster {cluster}, which is free"));
            }
            cluster = next;
        }
        Ok(content)
    }
}

/// Name, whether it is a directory, first cluster and size of what is in a directory.
fn directory(content: &[u8]) -> Vec<(String, bool, u32, usize)> {
    let mut found = Vec::new();
    let mut long: BTreeMap<u8, (u8, Vec<u16>)> = BTreeMap::new();
    for entry in content.chunks_exact(32) {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (DELETED, _) => long.clear(),
            (sequence, LONG_NAME) => {
                let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
                let letters = places.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]])).collect();
                long.insert(sequence & 0x3F, (entry[13], letters));
            }
            (_, attributes) if attributes & VOLUME != 0 => long.clear(),
            (first, attributes) => {
                let name =
                    long_name(&std::mem::take(&mut long), &entry[..11]).unwrap_or_else(|| short(entry));
                if first != b'.' {
                    let low = u32::from(u16::from_le_bytes([entry[26], entry[27]]));
                    let high = u32::from(u16::from_le_bytes([entry[20], entry[21]]));
                    let size = u32::from_le_bytes(entry[28..32].try_into().unwrap()) as usize;
                    found.push((name, attributes & DIRECTORY != 0, low | high << 16, size));
                }
            }
        }
    }
    found
}

/// A long name counts only if all of its parts are there and belong to the short one.
fn long_name(parts: &BTreeMap<u8, (u8, Vec<u16>)>, short: &[u8]) -> Option<String> {
    let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let whole = !parts.is_empty() && parts.keys().copied().eq(1..=u8::try_from(parts.len()).ok()?);
    let own = parts.values().all(|(checksum, _)| *checksum == sum);
    let letters = parts.values().flat_map(|(_, letters)| letters.iter().copied());
    let letters: Vec<u16> = letters.take_while(|letter| *letter != 0).collect();
    (whole && own).then(|| String::from_utf16_lossy(&letters))
}

fn short(entry: &[u8]) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (name, kind) = (part(&entry[..8]), part(&entry[8..11]));
    if kind.is_empty() { name } else { format!("{name}.{kind}") }
}

/// Every entry, the one that boots next first. An entry that cannot be read is an error: nobody should have left it.
pub fn entries(window: &Window) -> Result<Vec<Entry>, String> {
    let files = Fat::of(window).files()?;
    if files.contains_key(grub::ENV) {
        return grub::entries(&files);
    }
    let folder = format!("{ENTRIES}/");
    let listed = files.iter().filter_map(|(path, content)| Some((path.strip_prefix(&folder)?, content)));
    let texts = listed.filter(|(name, _)| name.rsplit_once('.').is_some_and(|(_, kind)| kind == "conf"));
    let mut entries =
        texts.map(|(name, content)| entry(name, content, &files)).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|a, b| a.order.cmp(&b.order));
    Ok(entries)
}

fn entry(name: &str, content: &[u8], files: &Files) -> Result<Entry, String> {
    let text = String::from_utf8_lossy(content).into_owned();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("{name} has no {key}: {text:?}"))
    };
    let options = value("options")?;
    let option = |key: &str| {
        let found = options.split(' ').find_map(|word| word.strip_prefix(key)).map(str::to_owned);
        found.ok_or_else(|| format!("{name} has no {key}: {options:?}"))
    };
    let stem = name.trim_end_matches(".conf");
    let (id, tries) = match stem.split_once('+') {
        None => (stem, None),
        Some((id, count)) => {
            let (left, done) = count.split_once('-').unwrap_or((count, "0"));
            (id, Some((left.parse().unwrap(), done.parse().unwrap())))
        }
    };
    let used_up = tries.is_some_and(|(left, _): (u32, u32)| left == 0);
    let version = value("version")?.parse().map_err(|_| format!("{name} has no number"))?;
    let file = |key| Ok::<_, String>(files.get(value(key)?.trim_start_matches('/')).cloned());
    Ok(Entry {
        file: name.to_owned(),
        tries,
        slot: option("evenkeel.slot=")?,
        digest: option("evenkeel.digest=")?,
        kernel: file("linux")?,
        initrd: file("initrd")?,
        // As boot_entry_compare of systemd-boot.
        order: (used_up, value("sort-key")?, std::cmp::Reverse(version), id.to_owned()),
    })
}
