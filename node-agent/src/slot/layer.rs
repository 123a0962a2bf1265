//! One layer: inflate, hash, and put each entry in its place. File data goes straight to the slot.

use std::{
    io::{self, BufReader, Read},
    mem,
};

use evenkeel_node_agent_core::{
    chunks::{estargz, position::INFLATED_MAX},
    digest::hex,
    tree::{Kind, Tree},
};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType, Header};

pub use super::entry::EntryError;
use super::{
    entry::{self, What, shown},
    error::WriteError,
    inflate::Inflater,
    last_header::Kept,
    pax::{Extended, HEADER_BYTES_MAX},
    writer::SlotWriter,
};

/// Entries of one layer, headers counted: far above any real image, and a bound on time. What fits into memory is the
/// tree's own to say.
const ENTRIES_MAX: u64 = 4_000_000;
/// Bytes of all extended headers of one layer: 256 for each entry, which is what builders write. A bound on time, as
/// they compress to almost nothing.
const HEADERS_BYTES_MAX: u64 = ENTRIES_MAX * 256;
/// Bytes behind the end of the archive: many times what programs pad to (10 KiB, tapes had up to 1 MiB).
const PADDING_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a header, and what data is padded to.
const HEADER: usize = 512;
const HEADER_BYTES: u64 = HEADER as u64;
const PADDING_BUFFER: usize = 64 << 10;

/// Why a layer is refused. The caller names the layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream ended early, or is not what it says it is.
    #[error("the layer's stream cannot be read")]
    Stream(#[source] io::Error),
    /// Something that should be an entry is none.
    #[error("the entry behind {after}{said} cannot be read")]
    Behind {
        /// Path of the entry before it, as far as it can be shown.
        after: String,
        /// Its own path in brackets, where headers that were read say one.
        said: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry is malformed or hostile.
    #[error("entry {entry}")]
    Entry {
        /// Its path, as far as it can be shown.
        entry: String,
        /// Why.
        #[source]
        source: EntryError,
    },
    /// The slot took no more.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Too many entries.
    #[error("the layer has more than {ENTRIES_MAX} entries, or more than 1 GB of extended headers")]
    TooManyEntries,
    /// It is a bomb.
    #[error("the layer has more than 16 MiB behind the end of its archive")]
    BehindTheEnd,
    /// Entries, perhaps, that would be missing without a word.
    #[error(
        "the layer goes on behind {after} after a block of zeros, which ends an archive: what follows would be left out; \
         build it as one archive"
    )]
    GoesOn {
        /// Path of the last entry before the end, as far as it can be shown.
        after: String,
    },
}

/// Hashes what passes.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// The digest of everything that passed.
    fn finish(self) -> (String, R) {
        (format!("sha256:{}", hex(&self.hash.finalize())), self.inner)
    }
}

/// Applies one layer, compressed by gzip or zstd or not at all, to `tree` and `writer`; gives its diff ID, the
/// `sha256:…` of the tar stream. Reads `layer` to its end: who made it checks there that all of it was right.
pub fn apply(layer: impl Read, tree: &mut Tree, writer: &mut SlotWriter) -> Result<String, LayerError> {
    let mut stream = Hashing::new(Inflater::new(BufReader::new(layer)).map_err(LayerError::Stream)?);
    unpack(&mut stream, tree, writer)?;
    let (diff_id, inflater) = stream.finish();
    inflater.finish().map_err(LayerError::Stream)?;
    Ok(diff_id)
}

/// What the extended headers before an entry said, and how much there was of them, for the entry and in the layer.
#[derive(Default)]
struct Said {
    extended: Extended,
    pending: bool,
    bytes_of_entry: u64,
    bytes: u64,
}

/// Applies the tar stream of one layer to `tree` and `writer`, and reads it to its end.
pub fn unpack(stream: impl Read, tree: &mut Tree, writer: &mut SlotWriter) -> Result<(), LayerError> {
    tree.begin_layer();
    writer.begin_layer()?;
    let (stream, last_block) = Kept::new(stream);
    let mut archive = Archive::new(stream);
    let mut said = Said::default();
    let mut count = 0;
    let mut last = b"the layer's start".to_vec();
    let mut next_at = 0;
    for entry in archive.entries().map_err(LayerError::Stream)?.raw(true) {
        let mut entry = entry.map_err(|source| {
            let name = said.extended.path.clone().or_else(|| last_block.borrow().name(next_at));
            let said = name.map_or_else(String::new, |name| format!(" ({} by its header)", shown(&name)));
            LayerError::Behind { after: shown(&last), said, source }
        })?;
        next_at = entry.raw_file_position().saturating_add(entry.size()).next_multiple_of(HEADER_BYTES);
        count += 1;
        if count > ENTRIES_MAX || said.bytes > HEADERS_BYTES_MAX {
            return Err(LayerError::TooManyEntries);
        }
        let header = entry::understood(entry.header());
        let name = said.extended.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let read = match header.entry_type() {
            EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink => {
                read_extended(&mut entry, &mut said).map_err(|source| named(&name, source))
            }
            _ => {
                (said.pending, said.bytes_of_entry) = (false, 0);
                place(&header, &name, mem::take(&mut said.extended), &mut entry, tree, writer)
            }
        };
        read?;
        last = name;
    }
    if said.pending {
        return Err(named(&last, EntryError::NoEntry));
    }
    end(archive.into_inner(), &last)
}

/// Reads what is behind the end: padding, which is zeros, and in layers that BuildKit made in the form of eStargz the table.
fn end(stream: impl Read, last: &[u8]) -> Result<(), LayerError> {
    let mut stream = BufReader::with_capacity(PADDING_BUFFER, stream);
    let goes_on = || LayerError::GoesOn { after: shown(last) };
    let Some(header) = padding(&mut stream)? else { return Ok(()) };
    let table = estargz::table_length(&header).filter(|length| *length <= INFLATED_MAX);
    let table = table.ok_or_else(goes_on)?.next_multiple_of(HEADER_BYTES);
    io::copy(&mut stream.by_ref().take(table), &mut io::sink()).map_err(LayerError::Stream)?;
    match padding(&mut stream)? {
        None => Ok(()),
        Some(_) => Err(goes_on()),
    }
}

/// Reads zeros to the stream's end, or to the first block in which there is something else.
fn padding(stream: &mut impl Read) -> Result<Option<[u8; HEADER]>, LayerError> {
    let mut bytes = 0;
    let mut read = Vec::new();
    loop {
        read.clear();
        stream.by_ref().take(HEADER_BYTES).read_to_end(&mut read).map_err(LayerError::Stream)?;
        if read.is_empty() {
            return Ok(None);
        }
        bytes += read.len() as u64;
        if read.iter().any(|byte| *byte != 0) {
            let mut block = [0; HEADER];
            block[..read.len()].copy_from_slice(&read);
            return Ok(Some(block));
        }
        if bytes > PADDING_BYTES_MAX {
            return Err(LayerError::BehindTheEnd);
        }
    }
}

fn named(path: &[u8], source: EntryError) -> LayerError {
    LayerError::Entry { entry: shown(path), source }
}

/// Takes in a header that says something of the entry behind it. What one says of all entries is passed over, as every
/// program does that makes images or unpacks them.
fn read_extended(entry: &mut tar::Entry<'_, impl Read>, said: &mut Said) -> Result<(), EntryError> {
    entry::size(entry.header())?;
    let kind = entry.header().entry_type();
    let expected = entry.size();
    let mut header = Vec::new();
    entry.take(HEADER_BYTES_MAX + 1).read_to_end(&mut header).map_err(EntryError::Data)?;
    if header.len() as u64 > HEADER_BYTES_MAX {
        return Err(EntryError::HeaderTooLong);
    }
    if (header.len() as u64) < expected {
        return Err(EntryError::Data(io::ErrorKind::UnexpectedEof.into()));
    }
    said.bytes += header.len() as u64;
    if kind != EntryType::XGlobalHeader {
        // Several of them add up, also in memory.
        said.pending = true;
        said.bytes_of_entry += header.len() as u64;
        if said.bytes_of_entry > HEADER_BYTES_MAX {
            return Err(EntryError::HeaderTooLong);
        }
    }
    match kind {
        EntryType::XHeader => said.extended.read(&header)?,
        EntryType::GNULongName => said.extended.path = Some(until_nul(header)),
        EntryType::GNULongLink => said.extended.link = Some(until_nul(header)),
        _ => {}
    }
    Ok(())
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn place(
    header: &Header,
    path: &[u8],
    extended: Extended,
    data: &mut impl Read,
    tree: &mut Tree,
    writer: &mut SlotWriter,
) -> Result<(), LayerError> {
    let refused = |source| named(path, source);
    let kind = match entry::what(header, path, &extended).map_err(refused)? {
        What::HardLink(target) => {
            writer.note_link(path, &target);
            return tree.hard_link(path, &target).map_err(|error| refused(error.into()));
        }
        What::Other(kind) => kind,
        What::File(length) => {
            let block = writer.write_file(data, length).map_err(|error| match error {
                WriteError::Source(source) => refused(EntryError::Data(source)),
                error => error.into(),
            })?;
            Kind::File { block, length }
        }
    };
    let attributes = entry::attributes(header, extended, &kind).map_err(refused)?;
    writer.note(path, &kind, &attributes);
    tree.put(path, kind, attributes).map_err(|error| refused(error.into()))
}
