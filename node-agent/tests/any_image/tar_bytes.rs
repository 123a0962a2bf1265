//! Tar archives byte by byte, in every dialect that builders write; no library, so that none decides what can be said.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Formatter},
};

/// One entry.
#[derive(Clone)]
pub struct Item {
    pub path: Vec<u8>,
    pub what: What,
    pub mode: u16,
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub time: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub dialect: Dialect,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq)]
pub enum What {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// A file's bytes, by what they are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub length: usize,
    pub seed: u8,
}

impl Content {
    /// Noise for odd seeds, one byte over and over for even ones.
    pub fn bytes(self) -> Vec<u8> {
        let mut state = u64::from(self.seed) << 32 | 0x9E37_79B9;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        if self.seed.is_multiple_of(2) {
            vec![self.seed; self.length]
        } else {
            (0..self.length).map(|_| next()).collect()
        }
    }
}

/// The form of a header. What it cannot say is said in the next richer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Old,
    Ustar,
    Gnu,
    Pax,
}

/// One line each, so that a stack that fails can be read.
impl Debug for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { path, what, mode, owner, time, xattrs, dialect } = self;
        let names: Vec<String> = xattrs.keys().map(|name| name.escape_ascii().to_string()).collect();
        write!(f, "{what:?} \"{}\" {mode:o} {owner:?} {time:?} {names:?} {dialect:?}", path.escape_ascii())
    }
}

impl Debug for What {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("Directory"),
            Self::File(Content { length, seed }) => write!(f, "File({length} of {seed})"),
            Self::Symlink(target) => write!(f, "Symlink({})", target.escape_ascii()),
            Self::HardLink(target) => write!(f, "HardLink({})", target.escape_ascii()),
            Self::Char(major, minor) => write!(f, "Char({major}:{minor})"),
            Self::Block(major, minor) => write!(f, "Block({major}:{minor})"),
            Self::Fifo => f.write_str("Fifo"),
        }
    }
}

const BLOCK: usize = 512;
const OCTAL_OF_8: u64 = 0o7_777_777;
const OCTAL_OF_12: u64 = 0o77_777_777_777;

impl Item {
    pub fn new(path: &[u8], what: What) -> Self {
        let (mode, owner, time) = (0o644, (0, 0), (1_700_000_000, 0));
        Self { path: path.to_vec(), what, mode, owner, time, xattrs: BTreeMap::new(), dialect: Dialect::Pax }
    }

    pub fn in_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    pub fn is_whiteout(&self) -> bool {
        let name = self.path.rsplit(|byte| *byte == b'/').next();
        name.is_some_and(|name| name.starts_with(b".wh."))
    }

    fn link(&self) -> &[u8] {
        match &self.what {
            What::Symlink(target) | What::HardLink(target) => target,
            _ => b"",
        }
    }

    /// The first dialect from the wanted one on that can say all of it.
    fn spoken(&self) -> Dialect {
        let (uid, gid) = (u64::from(self.owner.0), u64::from(self.owner.1));
        let large = uid.max(gid) > OCTAL_OF_8
            || !u64::try_from(self.time.0).is_ok_and(|seconds| seconds <= OCTAL_OF_12);
        let long = self.path.len() > 100 || self.link().len() > 100;
        let new = matches!(self.what, What::Char(..) | What::Block(..) | What::Fifo);
        if !self.xattrs.is_empty() || self.time.1 != 0 {
            return Dialect::Pax;
        }
        match self.dialect {
            Dialect::Old if large || long || new => Dialect::Gnu,
            Dialect::Ustar if large || self.link().len() > 100 || prefix_split(&self.path).is_none() => {
                Dialect::Pax
            }
            dialect => dialect,
        }
    }

    /// Headers and data.
    pub fn encode(&self) -> Vec<u8> {
        let dialect = self.spoken();
        let mut out = Vec::new();
        if dialect == Dialect::Pax {
            let records = self.records();
            out.extend(extra(b"PaxHeaders/x", b'x', dialect, &records));
        }
        if dialect == Dialect::Gnu {
            for (kind, text) in [(b'L', self.path.as_slice()), (b'K', self.link())] {
                if text.len() > 100 {
                    out.extend(extra(b"././@LongLink", kind, dialect, &[text, b"\0"].concat()));
                }
            }
        }
        let data = if let What::File(content) = self.what { content.bytes() } else { Vec::new() };
        out.extend(self.header(dialect, data.len() as u64));
        out.extend(padded(data));
        out
    }

    fn header(&self, dialect: Dialect, size: u64) -> Vec<u8> {
        let mut header = Header::new(dialect);
        let fits = prefix_split(&self.path).filter(|_| dialect == Dialect::Ustar);
        let (prefix, name) = fits.unwrap_or((b"", &self.path));
        header.text(0, &name[..name.len().min(100)]);
        header.text(345, prefix);
        header.text(157, &self.link()[..self.link().len().min(100)]);
        header.number(100, 8, i64::from(self.mode));
        header.number(108, 8, i64::from(self.owner.0));
        header.number(116, 8, i64::from(self.owner.1));
        header.number(124, 12, i64::try_from(size).unwrap());
        header.number(136, 12, self.time.0);
        let kind = match (&self.what, dialect) {
            // Before there was a type for directories, a slash said it.
            (What::Directory | What::File(_), Dialect::Old) => 0,
            (What::File(_), _) => b'0',
            (What::HardLink(_), _) => b'1',
            (What::Symlink(_), _) => b'2',
            (What::Char(..), _) => b'3',
            (What::Block(..), _) => b'4',
            (What::Directory, _) => b'5',
            (What::Fifo, _) => b'6',
        };
        header.bytes[156] = kind;
        if dialect == Dialect::Old && self.what == What::Directory && !self.path.ends_with(b"/") {
            header.text(0, &[name, b"/"].concat());
        }
        if let What::Char(major, minor) | What::Block(major, minor) = self.what {
            header.number(329, 8, i64::from(major));
            header.number(337, 8, i64::from(minor));
        }
        header.done()
    }

    fn records(&self) -> Vec<u8> {
        let (seconds, nanoseconds) = self.time;
        // -2 s and 750 000 000 ns are written as -1.25.
        let time = match (seconds < 0, nanoseconds) {
            (_, 0) => seconds.to_string(),
            (false, _) => format!("{seconds}.{nanoseconds:09}"),
            (true, _) if seconds == -1 => format!("-0.{:09}", 1_000_000_000 - nanoseconds),
            (true, _) => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanoseconds),
        };
        let mut records = [
            record(b"path", &self.path),
            record(b"uid", self.owner.0.to_string().as_bytes()),
            record(b"gid", self.owner.1.to_string().as_bytes()),
            record(b"mtime", time.as_bytes()),
        ]
        .concat();
        if !self.link().is_empty() {
            records.extend(record(b"linkpath", self.link()));
        }
        for (name, value) in &self.xattrs {
            records.extend(record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value));
        }
        records
    }
}

/// A header of 512 bytes under construction.
pub struct Header {
    pub bytes: Vec<u8>,
    pub dialect: Dialect,
}

impl Header {
    pub fn new(dialect: Dialect) -> Self {
        let mut header = Self { bytes: vec![0; BLOCK], dialect };
        match dialect {
            Dialect::Old => {}
            Dialect::Ustar | Dialect::Pax => header.text(257, b"ustar\x0000"),
            Dialect::Gnu => header.text(257, b"ustar  \0"),
        }
        header
    }

    pub fn text(&mut self, at: usize, text: &[u8]) {
        self.bytes[at..at + text.len()].copy_from_slice(text);
    }

    /// Octal where it fits, else base 256 in GNU's dialect, else nothing: a record says it.
    pub fn number(&mut self, at: usize, length: usize, value: i64) {
        let octal = u64::try_from(value).ok().filter(|value| *value < 1 << (3 * (length - 1)));
        if let Some(value) = octal {
            let digits = format!("{value:0width$o}\0", width = length - 1);
            self.text(at, digits.as_bytes());
        } else if self.dialect == Dialect::Gnu {
            let mut field = vec![if value < 0 { 0xff } else { 0 }; length - 8];
            field.extend(value.to_be_bytes());
            field[0] |= 0x80;
            self.text(at, &field);
        } else {
            self.text(at, &[b"0".repeat(length - 1), vec![0]].concat());
        }
    }

    /// With its checksum.
    pub fn done(mut self) -> Vec<u8> {
        self.text(148, b"        ");
        let sum: u32 = self.bytes.iter().map(|byte| u32::from(*byte)).sum();
        self.text(148, format!("{sum:06o}\0 ").as_bytes());
        self.bytes
    }
}

/// An entry that says something of the next.
pub fn extra(name: &[u8], kind: u8, dialect: Dialect, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new(dialect);
    header.text(0, name);
    header.number(100, 8, 0o644);
    header.number(124, 12, i64::try_from(data.len()).unwrap());
    header.bytes[156] = kind;
    [header.done(), padded(data.to_vec())].concat()
}

/// One record of an extended header.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// The archive of some entries, with so many empty blocks behind it.
pub fn archive(items: &[Item], end: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = items.iter().flat_map(Item::encode).collect();
    bytes.resize(bytes.len() + end * BLOCK, 0);
    bytes
}

fn padded(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

/// How ustar splits a path: up to 155 bytes, a slash, up to 100 bytes.
fn prefix_split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let at = (path.len() - 101..path.len() - 1).find(|at| path[*at] == b'/')?;
    (1..=155).contains(&at).then(|| (&path[..at], &path[at + 1..]))
}
