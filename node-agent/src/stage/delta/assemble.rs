//! The tar of a layer, from its tar-split, from slots of this disk, and from the parts that were fetched.

use std::{
    io::{self, Read, Write},
    ops::Range,
    sync::atomic::Ordering,
};

use evenkeel_node_agent_core::chunks::{
    BadTable,
    plan::Origin,
    position::INFLATED_MAX,
    table::Chunk,
    tar_split::{Record, Records},
};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::{Delta, Form, Place, prepare::inflate, reader::SlotReader};
use crate::stage::{Meter, feed::Feed};

/// Writes the layer's tar to `out`. `feed` has the bytes of [`Delta::ranges`]. An error of `out` or `feed` is passed on;
/// any other means that the layer must be fetched whole.
pub(in crate::stage) fn assemble(delta: &Delta, feed: &mut Feed, out: &mut impl Write) -> io::Result<()> {
    let meter = feed.meter().clone();
    match &delta.fetched {
        Some(fetched) => put(delta, &mut fetched.as_slice(), &meter, out)?,
        None => put(delta, feed, &meter, out)?,
    }
    // The end is told behind the last byte.
    io::copy(feed, &mut io::sink()).map(|_| ())
}

/// The same; `fetched` has the bytes of all ranges of the plan.
pub(super) fn put(
    delta: &Delta,
    fetched: &mut impl Read,
    meter: &Meter,
    out: &mut impl Write,
) -> io::Result<()> {
    let (tar_split, inflated) = &delta.tar_split;
    let mut records = Records::new(inflate(tar_split, *inflated)?);
    let mut files = delta.plan.files.iter();
    let mut slots = Slots { readers: delta.slots.iter().cloned().map(SlotReader::new).collect(), meter };
    let mut parts = Parts { fetched, form: &delta.form, ranges: delta.plan.ranges.iter(), current: 0..0 };
    while let Some(record) = records.next_record()? {
        match record {
            Record::Segment(bytes) => out.write_all(&bytes)?,
            Record::File(0) => {}
            Record::File(length) => {
                let next = files.next().filter(|file| file.length == length);
                let file = next.ok_or(BadTable::new("it and its tar-split tell of different files"))?;
                match &file.origin {
                    Origin::Held(place) => slots.copy(*place, length, out)?,
                    Origin::Chunks(chunks) => {
                        for (chunk, place) in chunks {
                            match place {
                                Some(place) => slots.copy(*place, chunk.length, out)?,
                                None => parts.chunk(chunk, out)?,
                            }
                        }
                    }
                }
                meter.applied.fetch_add(file.span, Ordering::Relaxed);
            }
        }
    }
    if files.next().is_some() {
        return Err(BadTable::new("it tells of files that its tar-split has not").into());
    }
    if let Form::EStargz { table } = &delta.form {
        io::copy(&mut GzDecoder::new(table.as_slice()).take(INFLATED_MAX), out)?;
    }
    Ok(())
}

/// Bytes of the layer that [`assemble`] counts as applied: those of its files' data.
pub(in crate::stage) fn counted(delta: &Delta) -> u64 {
    delta.plan.files.iter().map(|file| file.span).sum()
}

/// What is read of the slots.
struct Slots<'a> {
    readers: Vec<SlotReader>,
    meter: &'a Meter,
}

impl Slots<'_> {
    fn copy(&mut self, place: Place, length: u64, out: &mut impl Write) -> io::Result<()> {
        let slot = self.readers.get_mut(place.slot as usize).ok_or(io::ErrorKind::NotFound)?;
        slot.read(place.at(), length, |bytes| out.write_all(bytes))?;
        self.meter.copied.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}

/// What was fetched, by its place in the blob.
struct Parts<'a, R> {
    fetched: &'a mut R,
    form: &'a Form,
    ranges: std::slice::Iter<'a, Range<u64>>,
    /// What is left of the range whose bytes come next.
    current: Range<u64>,
}

impl<R: Read> Parts<'_, R> {
    fn chunk(&mut self, chunk: &Chunk, out: &mut impl Write) -> io::Result<()> {
        if chunk.zeros {
            return io::copy(&mut io::repeat(0).take(chunk.length), out).map(|_| ());
        }
        while self.current.end <= chunk.offset {
            self.skip(self.current.end)?;
            self.current = self.ranges.next().ok_or(io::ErrorKind::UnexpectedEof)?.clone();
        }
        self.skip(chunk.offset)?;
        self.current.start = chunk.end;
        let mut compressed = self.fetched.by_ref().take(chunk.end - chunk.offset);
        match self.form {
            Form::ZstdChunked => {
                let mut frames = zstd::stream::read::Decoder::new(&mut compressed)?;
                inflate_chunk(&mut frames, chunk, out)?;
                if frames.read(&mut [0])? != 0 {
                    return Err(not_the_chunk());
                }
            }
            // Behind it are padding and headers.
            Form::EStargz { .. } => inflate_chunk(&mut GzDecoder::new(&mut compressed), chunk, out)?,
        }
        io::copy(&mut compressed, &mut io::sink()).map(|_| ())
    }

    /// Goes on to a place in the current range.
    fn skip(&mut self, to: u64) -> io::Result<()> {
        let count = to.checked_sub(self.current.start).ok_or(io::ErrorKind::InvalidInput)?;
        io::copy(&mut self.fetched.by_ref().take(count), &mut io::sink())?;
        self.current.start = to;
        Ok(())
    }
}

/// Writes a chunk, if these are its bytes.
fn inflate_chunk(inflated: &mut impl Read, chunk: &Chunk, out: &mut impl Write) -> io::Result<()> {
    let mut hashing = Hashing { out, hash: Sha256::new() };
    let count = io::copy(&mut inflated.take(chunk.length), &mut hashing)?;
    let right = count == chunk.length && hashing.hash.finalize()[..] == chunk.digest;
    if right { Ok(()) } else { Err(not_the_chunk()) }
}

fn not_the_chunk() -> io::Error {
    BadTable::new("a chunk that was fetched is not what it says").into()
}

struct Hashing<'a, W> {
    out: &'a mut W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
