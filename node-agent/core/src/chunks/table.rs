//! The chunk table: which bytes of the blob hold which files.
//!
//! | field | meaning |
//! |---|---|
//! | `version` | 1 |
//! | `tarSplitDigest` | `sha256:…` of the tar-split, compressed |
//! | `entries` | the tar's entries, in its order; of each are read: |
//! | `type` | `reg`, `chunk` (one more chunk of the `reg` before it), or another that has no data |
//! | `name` | path of the file (`reg`), of which only the last part counts here |
//! | `size` | bytes of the file (`reg`) |
//! | `digest` | `sha256:…` of the file's bytes (`reg`); absent if it is empty |
//! | `offset` | where in the blob the first frame of the file or chunk begins |
//! | `endOffset` | where the last frame of the file ends (`reg`) |
//! | `chunkOffset` | where in the file the chunk begins |
//! | `chunkSize` | bytes of the chunk; absent in a file that has only one |
//! | `chunkDigest` | `sha256:…` of the chunk's bytes; absent in a file that has only one |
//! | `chunkType` | `zeros` for a chunk of nothing but zeros; absent for others |
//!
//! The other fields of an entry repeat what the tar has, and are not read.
//!
//! A table of eStargz has the same fields but for these:
//!
//! | field | meaning |
//! |---|---|
//! | `tarSplitDigest`, `endOffset`, `chunkType` | absent: a chunk's member ends where that of the next one begins, the last where the data does |
//! | `chunkSize` | absent for the last chunk of each file, unless it is as long as the ones before |
//! | `chunkDigest` | of each chunk, also of a file that has only one |
//! | `innerOffset` | where in its member a chunk begins that is not the first there; such tables are refused |

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read,
    ops::Range,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::BadTable;
use crate::digest::unhex;

/// Files with data, and chunks, in one table: more than any image has, in 56 and 64 bytes of memory each.
const COUNT_MAX: usize = 400_000;

/// Which bytes of the blob hold which files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Files that are not empty, in the order of the tar.
    pub files: Vec<File>,
    chunks: Vec<Chunk>,
    /// SHA-256 of the compressed tar-split; `None` in a table of eStargz.
    pub tar_split: Option<[u8; 32]>,
}

/// Whether a table is one of eStargz, as a parameter of types.
const ESTARGZ: bool = true;
const ZSTD_CHUNKED: bool = !ESTARGZ;

/// A file that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// How many there are.
    pub length: u64,
    /// What [`name`] makes of its path.
    pub name: u64,
    first: u32,
    count: u32,
}

/// A part of a file that has frames of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where its frames begin in the blob.
    pub offset: u64,
    /// Where they end.
    pub end: u64,
    /// Bytes when they are inflated.
    pub length: u64,
    /// SHA-256 of these.
    pub digest: [u8; 32],
    /// Whether they are all zeros, so that nobody needs to fetch them.
    pub zeros: bool,
}

/// Stands for the last part of a path: other files of that name are worth a look. It is another number in each version
/// of this program.
pub fn name(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.rsplit(|byte| *byte == b'/').next().hash(&mut hasher);
    hasher.finish()
}

impl Table {
    /// Reads the JSON of a table of zstd:chunked. The data of files ends at `data_end` of the blob.
    pub fn parse(json: impl Read, data_end: u64) -> Result<Self, BadTable> {
        let mut document: Document<ZSTD_CHUNKED> = read(json)?;
        let digest = document.tar_split_digest.as_deref().and_then(unhex);
        let digest = digest.ok_or(BadTable::new("it has no digest of a tar-split"))?;
        document.entries.0.tar_split = Some(digest);
        document.entries.0.within(data_end)
    }

    /// The same for a table of eStargz, which begins at `data_end`.
    pub fn parse_estargz(json: impl Read, data_end: u64) -> Result<Self, BadTable> {
        let mut table = read::<ESTARGZ>(json)?.entries.0;
        if let Some(last) = table.chunks.last_mut() {
            if last.offset >= data_end {
                return Err(BadTable::new("a file lies behind the layer's data"));
            }
            last.end = data_end;
        }
        table.within(data_end)
    }

    fn within(mut self, data_end: u64) -> Result<Self, BadTable> {
        self.files.shrink_to_fit();
        self.chunks.shrink_to_fit();
        if self.chunks.last().is_some_and(|chunk| chunk.end > data_end) {
            return Err(BadTable::new("a file lies behind the layer's data"));
        }
        Ok(self)
    }

    /// Bytes of the chunks but the last of each file, if they are cut by their length as eStargz does; `None` if no file has
    /// several, or by what is in them.
    pub fn chunk_length(&self) -> Option<u64> {
        let several = self.files.iter().find(|file| file.count > 1);
        several.filter(|_| self.tar_split.is_none()).map(|file| self.chunks[file.first as usize].length)
    }

    /// The chunks of a file of this table.
    pub fn chunks(&self, file: &File) -> &[Chunk] {
        &self.chunks[file.chunks()]
    }

    /// Where the frames of a file of this table lie in the blob.
    pub fn span(&self, file: &File) -> Range<u64> {
        let chunks = self.chunks(file);
        chunks.first().map_or(0, |chunk| chunk.offset)..chunks.last().map_or(0, |chunk| chunk.end)
    }

    /// Takes in a file: its first entry, and those of the chunks behind the first. The last chunk ends at `end`.
    fn add(&mut self, file: &Entry, more: &[Entry], end: u64) -> Result<(), BadTable> {
        let wrong = |what: &'static str| Err(BadTable::new(what));
        let Some(digest) = file.digest.as_deref().and_then(unhex) else {
            return wrong("a file has no sha256 digest");
        };
        let first = self.chunks.len();
        let all = || std::iter::once(file).chain(more);
        let ends = more.iter().map(|next| next.offset).chain([end]);
        let mut length = 0_u64;
        for (entry, end) in all().zip(ends) {
            let of_file = more.is_empty() && entry.chunk_size == 0;
            let size = if of_file { file.size } else { entry.chunk_size };
            let named = if of_file { &file.digest } else { &entry.chunk_digest };
            let Some(digest) = named.as_deref().and_then(unhex) else {
                return wrong("a chunk has no sha256 digest");
            };
            let before = self.chunks.last().map_or(0, |chunk| chunk.end);
            if entry.chunk_offset != length || size == 0 || entry.offset < before || end <= entry.offset {
                return wrong("the chunks of a file do not lie one behind the other");
            }
            let zeros = match entry.chunk_type.as_deref() {
                None | Some("") => false,
                Some("zeros") => true,
                Some(_) => return wrong("a chunk is of a type that is not known"),
            };
            let Some(sum) = length.checked_add(size) else {
                return wrong("a file has more bytes than there can be");
            };
            length = sum;
            self.chunks.push(Chunk { offset: entry.offset, end, length: size, digest, zeros });
        }
        if length != file.size {
            return wrong("the chunks of a file have not as many bytes as the file");
        }
        if self.files.len() >= COUNT_MAX || self.chunks.len() > COUNT_MAX {
            return wrong("it has more than 400,000 files or chunks");
        }
        let number = |number: usize| u32::try_from(number).expect("at most COUNT_MAX");
        let (first, count) = (number(first), number(self.chunks.len() - first));
        self.files.push(File { digest, length, name: name(file.name.as_bytes()), first, count });
        Ok(())
    }
}

impl File {
    fn chunks(&self) -> Range<usize> {
        self.first as usize..(self.first + self.count) as usize
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<const IS_ESTARGZ: bool> {
    version: u64,
    entries: Entries<IS_ESTARGZ>,
    tar_split_digest: Option<String>,
}

fn read<const IS_ESTARGZ: bool>(json: impl Read) -> Result<Document<IS_ESTARGZ>, BadTable> {
    let document: Document<IS_ESTARGZ> = serde_json::from_reader(json)
        .map_err(|error| BadTable::new(format!("it cannot be read: {error}")))?;
    if document.version != 1 {
        return Err(BadTable::new("its version is not 1"));
    }
    Ok(document)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Entry {
    r#type: String,
    name: String,
    size: u64,
    digest: Option<String>,
    offset: u64,
    end_offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
    chunk_digest: Option<String>,
    chunk_type: Option<String>,
    inner_offset: u64,
}

/// The entries, as they are kept: the list itself would need many times the memory.
struct Entries<const IS_ESTARGZ: bool>(Table);

impl<'de, const IS_ESTARGZ: bool> Deserialize<'de> for Entries<IS_ESTARGZ> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Collect::<IS_ESTARGZ>::default()).map(Self)
    }
}

#[derive(Default)]
struct Collect<const IS_ESTARGZ: bool> {
    table: Table,
    /// The file whose chunks come, with those behind its first.
    file: Option<(Entry, Vec<Entry>)>,
}

impl<const IS_ESTARGZ: bool> Collect<IS_ESTARGZ> {
    fn take(&mut self, mut entry: Entry) -> Result<(), BadTable> {
        if entry.r#type == "chunk" {
            let Some((file, more)) = &mut self.file else {
                return Err(BadTable::new("a chunk belongs to no file"));
            };
            if more.len() >= COUNT_MAX {
                return Err(BadTable::new("a file has more than 400,000 chunks"));
            }
            if IS_ESTARGZ {
                entry.whole_chunk(file.size)?;
            }
            more.push(entry);
            return Ok(());
        }
        if entry.r#type == "reg" && entry.size > 0 {
            self.end_file(Some(entry.offset))?;
            if IS_ESTARGZ {
                entry.whole_chunk(entry.size)?;
            }
            self.file = Some((entry, Vec::new()));
        }
        Ok(())
    }

    /// Ends the file whose chunks came; the next one begins at `next`.
    fn end_file(&mut self, next: Option<u64>) -> Result<(), BadTable> {
        let Some((file, more)) = self.file.take() else { return Ok(()) };
        // Of the last file of an eStargz the end is set when it is known.
        let end = if IS_ESTARGZ { next.unwrap_or(u64::MAX) } else { file.end_offset };
        self.table.add(&file, &more, end)
    }
}

impl Entry {
    /// Gives a chunk of eStargz its length where it is not said, for a file of so many bytes.
    fn whole_chunk(&mut self, size: u64) -> Result<(), BadTable> {
        if self.inner_offset != 0 {
            return Err(BadTable::new("several chunks share a member of gzip"));
        }
        if self.chunk_size == 0 {
            self.chunk_size = size.saturating_sub(self.chunk_offset);
        }
        Ok(())
    }
}

impl<'de, const IS_ESTARGZ: bool> Visitor<'de> for Collect<IS_ESTARGZ> {
    type Value = Table;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<Table, A::Error> {
        while let Some(entry) = entries.next_element::<Entry>()? {
            self.take(entry).map_err(A::Error::custom)?;
        }
        self.end_file(None).map_err(A::Error::custom)?;
        Ok(self.table)
    }
}
