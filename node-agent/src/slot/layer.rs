//! One layer: inflate, hash, and put each entry in its place. File data goes straight to the slot.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read},
    mem,
};

use evenkeel_node_agent_core::{
    digest::hex,
    tree::{Attributes, Kind, Tree, TreeError},
};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType, Header};

use super::{
    pax::{Extended, HEADER_BYTES_MAX, PaxError},
    writer::{SlotWriter, WriteError},
};

/// Entries of one layer, headers counted: far above any real image, and a bound on time. What fits into memory is the
/// tree's own to say.
const ENTRIES_MAX: u64 = 4_000_000;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Room for the magic of every compression, and large enough that reads from the network are not split.
const READ_BUFFER: usize = 256 << 10;

/// Why a layer is refused. The caller names the layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream ended early, or is not what it says it is.
    #[error("the layer's stream cannot be read")]
    Stream(#[source] io::Error),
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
    #[error("the layer has more than {ENTRIES_MAX} entries")]
    TooManyEntries,
}

/// Why an entry is refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It has no place in the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Its extended header.
    #[error(transparent)]
    Pax(#[from] PaxError),
    /// Its header.
    #[error("its header is malformed")]
    Header(#[source] io::Error),
    /// Its extended header is too long.
    #[error("its extended header has more than {HEADER_BYTES_MAX} bytes")]
    HeaderTooLong,
    /// Its extended size and its header's differ.
    #[error("its size is given twice, and differently, or is above 8 GiB")]
    Size,
    /// A kind of entry that no image should have.
    #[error("its type {0:?} is not supported")]
    Type(EntryType),
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

    /// Reads to the end and gives the digest of everything.
    fn finish(mut self) -> Result<(String, R), LayerError> {
        io::copy(&mut self, &mut io::sink()).map_err(LayerError::Stream)?;
        Ok((format!("sha256:{}", hex(&self.hash.finalize())), self.inner))
    }
}

/// Applies one layer, compressed by gzip or zstd or not at all, to `tree` and `writer`; gives its diff ID, the
/// `sha256:…` of the tar stream. Reads `layer` to its end: who made it checks there that all of it was right.
pub fn apply(layer: impl Read, tree: &mut Tree, writer: &mut SlotWriter) -> Result<String, LayerError> {
    tree.begin_layer();
    let mut compressed = BufReader::with_capacity(READ_BUFFER, layer);
    let magic = compressed.fill_buf().map_err(LayerError::Stream)?;
    let (diff_id, mut compressed) = if magic.starts_with(GZIP) {
        let (id, decoder) = unpack(flate2::bufread::MultiGzDecoder::new(compressed), tree, writer)?;
        (id, decoder.into_inner())
    } else if magic.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(LayerError::Stream)?;
        let (id, decoder) = unpack(decoder, tree, writer)?;
        (id, decoder.finish())
    } else {
        unpack(compressed, tree, writer)?
    };
    io::copy(&mut compressed, &mut io::sink()).map_err(LayerError::Stream)?;
    Ok(diff_id)
}

fn unpack<R: Read>(stream: R, tree: &mut Tree, writer: &mut SlotWriter) -> Result<(String, R), LayerError> {
    let mut archive = Archive::new(Hashing::new(stream));
    let mut extended = Extended::default();
    let mut count = 0;
    for entry in archive.entries().map_err(LayerError::Stream)?.raw(true) {
        let mut entry = entry.map_err(LayerError::Stream)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(LayerError::TooManyEntries);
        }
        let name = extended.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
        let named = |source: EntryError| LayerError::Entry {
            entry: String::from_utf8_lossy(&name).into_owned(),
            source,
        };
        match entry.header().entry_type() {
            EntryType::XHeader => {
                let header = read_header(&mut entry)?.ok_or_else(|| named(EntryError::HeaderTooLong))?;
                extended.read(&header).map_err(|error| named(error.into()))?;
            }
            EntryType::GNULongName => {
                let header = read_header(&mut entry)?.ok_or_else(|| named(EntryError::HeaderTooLong))?;
                extended.path = Some(until_nul(header));
            }
            EntryType::GNULongLink => {
                let header = read_header(&mut entry)?.ok_or_else(|| named(EntryError::HeaderTooLong))?;
                extended.link = Some(until_nul(header));
            }
            EntryType::XGlobalHeader => {}
            _ => {
                let header = entry.header().clone();
                let extended = mem::take(&mut extended);
                place(&header, &name, extended, &mut entry, tree, writer, named)?;
            }
        }
    }
    archive.into_inner().finish()
}

fn read_header(entry: &mut impl Read) -> Result<Option<Vec<u8>>, LayerError> {
    let mut header = Vec::new();
    entry.take(HEADER_BYTES_MAX + 1).read_to_end(&mut header).map_err(LayerError::Stream)?;
    Ok((header.len() as u64 <= HEADER_BYTES_MAX).then_some(header))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn place(
    header: &Header,
    name: &[u8],
    extended: Extended,
    data: &mut impl Read,
    tree: &mut Tree,
    writer: &mut SlotWriter,
    named: impl Fn(EntryError) -> LayerError,
) -> Result<(), LayerError> {
    let link = extended.link.clone().or_else(|| header.link_name_bytes().map(Cow::into_owned));
    let link = link.unwrap_or_default();
    let device = || -> Result<(u32, u32), EntryError> {
        let part = |number: io::Result<Option<u32>>| -> Result<u32, EntryError> {
            Ok(number.map_err(EntryError::Header)?.unwrap_or(0))
        };
        Ok((part(header.device_major())?, part(header.device_minor())?))
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => {
            Kind::Directory(BTreeMap::new())
        }
        EntryType::Regular | EntryType::Continuous => {
            let size = header.entry_size().map_err(|error| named(EntryError::Header(error)))?;
            if extended.size.is_some_and(|other| other != size) {
                return Err(named(EntryError::Size));
            }
            Kind::File { block: writer.write_file(data, size)?, length: size }
        }
        EntryType::Directory => Kind::Directory(BTreeMap::new()),
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Char => device().map(|(major, minor)| Kind::CharDevice(major, minor)).map_err(&named)?,
        EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice(major, minor)).map_err(&named)?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Link => return tree.hard_link(name, &link).map_err(|error| named(error.into())),
        other => return Err(named(EntryError::Type(other))),
    };
    let attributes = attributes(header, extended).map_err(&named)?;
    tree.put(name, kind, attributes).map_err(|error| named(error.into()))
}

fn attributes(header: &Header, extended: Extended) -> Result<Attributes, EntryError> {
    let fields = header.as_old();
    let id = |field: &[u8], id: io::Result<u64>| -> Result<u32, EntryError> {
        u32::try_from(number(field, id)?).map_err(|_| EntryError::Pax(PaxError::Number("owner".into())))
    };
    let mode = number(&fields.mode, header.mode())? & 0o7777;
    let seconds = number(&fields.mtime, header.mtime())?;
    let seconds = i64::try_from(seconds).map_err(|_| EntryError::Pax(PaxError::Number("mtime".into())))?;
    let (mtime, mtime_nanoseconds) = extended.mtime.unwrap_or((seconds, 0));
    Ok(Attributes {
        mode: u16::try_from(mode).expect("twelve bits"),
        uid: extended.uid.map_or_else(|| id(&fields.uid, header.uid()), Ok)?,
        gid: extended.gid.map_or_else(|| id(&fields.gid, header.gid()), Ok)?,
        mtime,
        mtime_nanoseconds,
        xattrs: extended.xattrs,
    })
}

/// A numeric field; one that was left blank is zero, as other programs read it.
fn number<T: Default>(field: &[u8], parsed: io::Result<T>) -> Result<T, EntryError> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(T::default());
    }
    parsed.map_err(EntryError::Header)
}
