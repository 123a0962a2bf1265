//! The tar-split of a layer, made from its table: it need not be fetched when a program wrote the layer's tar of which is
//! known how it writes headers.
//!
//! Of each entry the table has all that such a program puts into its headers (`FileMetadata` in
//! `pkg/chunked/internal/minimal/compression.go` of containers/storage):
//!
//! | field | meaning |
//! |---|---|
//! | `type` | `reg`, `hardlink`, `symlink`, `char`, `block`, `dir`, `fifo`; `chunk` is no entry of the tar |
//! | `name`, `linkName` | as in the tar |
//! | `mode`, `size`, `uid`, `gid`, `devMajor`, `devMinor` | numbers; absent if they are 0 |
//! | `modtime` | RFC 3339, to the nanosecond |
//! | `xattrs` | values in base64, by name |
//!
//! A table of eStargz (`TOCEntry` in `estargz/types.go` of the stargz snapshotter) has the same, but that a time is in whole
//! seconds, and absent if it is 0 (the beginning of 1970) or was not set; and
//!
//! | field | meaning |
//! |---|---|
//! | `userName`, `groupName` | as in the tar, if they are other than in the last entry of the same owner or group; never taken back |
//!
//! What comes out is a guess. Its length must be that of the real tar-split, which the layer's annotations tell: that finds
//! out nearly everything that makes other headers or more of them. Names of owners are not found out so, and of an eStargz there
//! is no length. Whether the guess was right is seen by the diff ID of what is put together with it.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::{self, Read, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

pub use super::tar_header::Writer;
use super::{
    BadTable,
    position::INFLATED_MAX,
    tar_header::{Header, padding},
};

/// Bytes of an entry's attributes, names and values: more than a reader of tars takes.
const XATTR_BYTES_MAX: usize = 1 << 20;
/// In the place of the checksum of a file's data, which nobody reads.
const CHECKSUM: &str = "\"AAAAAAAAAAA=\"";

/// What is known of a tar of which a table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The table is one of zstd:chunked, and the tar-split has so many bytes.
    ZstdChunked {
        /// Bytes of the tar-split, inflated.
        inflated: u64,
    },
    /// The table is one of eStargz, and its own entry comes behind those that it tells of.
    EStargz {
        /// Whether the end of a tar is before that entry.
        ended: bool,
    },
}

/// Writes to `out` the tar-split, in the form of [`super::tar_split`], that belongs to the table with this JSON if `writer`
/// wrote the tar, and gives its bytes. Fails if these are not as many as is known, if it cannot be told, or if `out` does not take
/// it.
pub fn tar_split(
    table: impl Read,
    writer: Writer,
    known: Known,
    out: &mut impl Write,
) -> Result<u64, BadTable> {
    let mut lines = Lines {
        writer,
        known,
        owners: Owners::default(),
        out,
        length: 0,
        position: 0,
        tar: 0,
        segment: Vec::new(),
        text: String::new(),
    };
    let mut json = serde_json::Deserializer::from_reader(table);
    let cannot = |why: &dyn fmt::Display| BadTable(format!("its tar-split cannot be told: {why}").into());
    Entries(&mut lines).deserialize(&mut json).map_err(|error| cannot(&error))?;
    lines.finish().map_err(|error| cannot(&error))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    r#type: String,
    name: String,
    link_name: String,
    mode: u64,
    size: u64,
    uid: u64,
    gid: u64,
    #[serde(rename = "modtime")]
    mtime: Option<Timestamp>,
    dev_major: u64,
    dev_minor: u64,
    user_name: String,
    group_name: String,
    xattrs: Xattrs,
}

/// The names of owners, by their numbers, as far as a table has told them.
#[derive(Default)]
struct Owners {
    users: BTreeMap<u64, String>,
    groups: BTreeMap<u64, String>,
}

impl Owners {
    /// Gives an entry the names that its table has left out.
    fn complete(&mut self, entry: &mut Entry) {
        for (names, number, name) in [
            (&mut self.users, entry.uid, &mut entry.user_name),
            (&mut self.groups, entry.gid, &mut entry.group_name),
        ] {
            if name.is_empty() {
                name.clone_from(names.entry(number).or_default());
            } else {
                names.insert(number, name.clone());
            }
        }
    }
}

impl Entry {
    fn header(&self) -> Option<Header<'_>> {
        let kind = match self.r#type.as_str() {
            "reg" => b'0',
            "hardlink" => b'1',
            "symlink" => b'2',
            "char" => b'3',
            "block" => b'4',
            "dir" => b'5',
            "fifo" => b'6',
            _ => return None,
        };
        Some(Header {
            kind,
            path: &self.name,
            link: &self.link_name,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            owner: (&self.user_name, &self.group_name),
            size: self.size,
            mtime: self.mtime?,
            device: (self.dev_major, self.dev_minor),
            xattrs: &self.xattrs.0,
        })
    }
}

/// What is written, a line for each record.
struct Lines<'a, W> {
    writer: Writer,
    known: Known,
    owners: Owners,
    out: &'a mut W,
    /// Bytes of the tar-split so far.
    length: u64,
    /// Number of the next record.
    position: u64,
    /// Bytes of the tar so far.
    tar: u64,
    /// The tar's bytes since the last file's data.
    segment: Vec<u8>,
    text: String,
}

impl<W: Write> Lines<'_, W> {
    fn entry(&mut self, mut entry: Entry) -> io::Result<()> {
        if matches!(self.known, Known::EStargz { .. }) {
            self.owners.complete(&mut entry);
            entry.mtime = entry.mtime.or(Some(Timestamp::UNIX_EPOCH));
        }
        let headers = entry.header().and_then(|header| self.writer.headers(&header, &mut self.segment));
        headers.ok_or_else(|| io::Error::other("of an entry it is not known how its header is written"))?;
        self.segment()?;
        self.text.clear();
        self.text.push_str("{\"type\":1");
        if !entry.name.is_empty() {
            self.text.push_str(",\"name\":");
            quote(&entry.name, &mut self.text);
        }
        if entry.size > 0 {
            self.field(format_args!(",\"size\":{}", entry.size));
        }
        let checksum = if entry.size > 0 { CHECKSUM } else { "null" };
        self.field(format_args!(",\"payload\":{checksum}"));
        self.tar = self.tar.checked_add(entry.size).ok_or_else(|| io::Error::other("files are too large"))?;
        self.segment.resize(padding(entry.size), 0);
        self.line()
    }

    fn finish(mut self) -> io::Result<u64> {
        if self.known != (Known::EStargz { ended: false }) {
            let (end, more) = self.writer.trailer(self.tar + self.segment.len() as u64);
            self.segment.resize(self.segment.len() + end, 0);
            self.segment()?;
            self.segment.resize(more, 0);
        }
        self.segment()?;
        match self.known {
            Known::ZstdChunked { inflated } if self.length < inflated => {
                Err(io::Error::other("it would be shorter"))
            }
            _ => Ok(self.length),
        }
    }

    /// A record of the bytes since the last one, if there are any.
    fn segment(&mut self) -> io::Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        self.text.clear();
        self.text.push_str("{\"type\":2,\"payload\":\"");
        STANDARD.encode_string(&self.segment, &mut self.text);
        self.text.push('"');
        self.tar += self.segment.len() as u64;
        self.segment.clear();
        self.line()
    }

    fn field(&mut self, field: fmt::Arguments<'_>) {
        self.text.write_fmt(field).expect("writing to a string does not fail");
    }

    /// Ends a record.
    fn line(&mut self) -> io::Result<()> {
        let position = self.position;
        self.field(format_args!(",\"position\":{position}}}\n"));
        self.position += 1;
        self.length += self.text.len() as u64;
        let most = match self.known {
            Known::ZstdChunked { inflated } => inflated,
            Known::EStargz { .. } => INFLATED_MAX,
        };
        if self.length > most {
            return Err(io::Error::other("it would be longer"));
        }
        self.out.write_all(self.text.as_bytes())
    }
}

/// A string as Go's `encoding/json` writes it, which makes escapes of what HTML and JavaScript could take for something else.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(letter)).expect("writing to a string does not fail");
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// Goes through the entries of a table's JSON; nothing of them is kept.
struct Entries<'a, 'b, W>(&'a mut Lines<'b, W>);

impl<'de, W: Write> DeserializeSeed<'de> for Entries<'_, '_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, W: Write> Visitor<'de> for Entries<'_, '_, W> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a table or its list of entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(field) = fields.next_key::<String>()? {
            if field == "entries" {
                fields.next_value_seed(Entries(&mut *self.0))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Entry>()? {
            if entry.r#type != "chunk" {
                self.0.entry(entry).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// Attributes, by their names.
#[derive(Default)]
struct Xattrs(BTreeMap<String, Vec<u8>>);

impl<'de> Deserialize<'de> for Xattrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CollectXattrs)
    }
}

struct CollectXattrs;

impl<'de> Visitor<'de> for CollectXattrs {
    type Value = Xattrs;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Xattrs, A::Error> {
        let (mut xattrs, mut left) = (BTreeMap::new(), XATTR_BYTES_MAX);
        while let Some((name, value)) = fields.next_entry::<String, String>()? {
            let bytes = (name.len() + value.len()).max(1);
            left = left
                .checked_sub(bytes)
                .ok_or_else(|| A::Error::custom("an entry has too many attributes"))?;
            xattrs.insert(name, STANDARD.decode(value).map_err(A::Error::custom)?);
        }
        Ok(Xattrs(xattrs))
    }
}
