//! Where a byte reaches the slot: data in the order in which it comes, metadata and hash tree behind it, block 0 last.

mod finish;

use std::{
    io::{self, Read},
    sync::{Arc, atomic::Ordering},
};

use evenkeel_node_agent_core::{
    content_index::{Draft, entries::EntriesBuilder},
    digest::unhex,
    erofs::{BLOCK, ErofsError},
    section_list::LISTS_AT,
    slot_record::{RECORD_LENGTH, SlotRecord},
    tree::{Attributes, Kind},
};

use super::{
    error::WriteError,
    index::HeldLayer,
    lane::{Check, Counters, Lane, LayerEnd, WRITE, Work, list},
    verity::DIGEST,
};
use crate::disk::{SlotRegion, Window, aligned::AlignedBuffer};

const BLOCK_BYTES: u64 = BLOCK as u64;
/// Bytes at a slot's start that tell whether it was ever written: the superblock, and the beginning of the data.
const LOOK: usize = 64 << 10;

/// What was written, as the slot's record keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Bytes of the file system.
    pub length: u64,
    /// Root of the hash tree behind it (dm-verity version 1, SHA-256, 4096-byte blocks, no salt), lower-case hex.
    pub root_hash: String,
    /// SHA-256 of block 0, lower-case hex.
    pub superblock_sha256: String,
    /// SHA-256 of each layer's section of the content index, lower-case hex, base first.
    pub sections: Vec<String>,
}

/// What writing cost, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCost {
    /// That the device was given.
    pub written: u64,
    /// That the slot held already at their place.
    pub skipped: u64,
    /// That came from another slot.
    pub copied: u64,
}

/// A slot that is being written. Until [`SlotWriter::seal`] it is not complete, whatever happens.
pub struct SlotWriter {
    slot: Window,
    region: SlotRegion,
    /// What is filled now; absent before the first byte and once the data is settled.
    buffer: Option<AlignedBuffer>,
    /// Blocks before the buffer's first; block 0 comes last and has a place.
    blocks: usize,
    /// Takes the data while it comes.
    lane: Option<Lane>,
    counters: Arc<Counters>,
    /// SHA-256 of every block, once the data is settled.
    leaves: Vec<u8>,
    /// SHA-256 of every layer's section, once the data is settled.
    sections: Vec<String>,
    /// What is to be read back after the flush.
    unchecked: Vec<Check>,
    /// Where the content index begins, which grows downwards.
    floor: u64,
    entries: EntriesBuilder,
    layer_begin: usize,
}

impl SlotWriter {
    /// Opens the slot and makes it incomplete, durably, before anything else.
    pub fn begin(region: &SlotRegion) -> Result<Self, WriteError> {
        Self::begin_with(region, &[])
    }

    /// The same, and of what is there the sections of the layers in `keep` stay, which are the slot's first; their data
    /// has to be taken over by `keep_data`, one after the other.
    pub fn begin_with(region: &SlotRegion, keep: &[HeldLayer]) -> Result<Self, WriteError> {
        let disk =
            |operation| move |source| WriteError::Disk { operation, slot: region.name.clone(), source };
        let slot = region.open_rw().map_err(disk("open"))?;
        let counters = Arc::new(Counters::default());
        // What cannot be read was written once; and writing may mend it.
        let old = was_written(&slot).unwrap_or(true);
        let lane = Lane::start(&slot, region, old, &counters);
        let mut writer = Self {
            slot,
            region: region.clone(),
            buffer: None,
            blocks: 1,
            lane: Some(lane),
            counters,
            leaves: Vec::new(),
            sections: Vec::new(),
            unchecked: Vec::new(),
            floor: keep.last().map_or(region.record_at(), |layer| layer.section_at),
            entries: EntriesBuilder::default(),
            layer_begin: 1,
        };
        if region.length < RECORD_LENGTH + BLOCK_BYTES {
            return Err(writer.too_large());
        }
        let kept: Vec<String> = keep.iter().map(|layer| layer.section_sha256.clone()).collect();
        let (at, list) = list(&kept);
        let lists = usize::try_from(LISTS_AT[0]).expect("16 KiB fit every usize");
        writer.write_at("wipe the record of", region.record_at(), &vec![0; lists])?;
        writer.write_at("write the section list of", region.record_at() + at, &list)?;
        if let Some(footer) = writer.floor.checked_sub(BLOCK_BYTES) {
            writer.write_at("wipe the content index of", footer, &[0; BLOCK])?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Begins a layer; all data is that of a layer.
    pub(super) fn begin_layer(&mut self) -> Result<(), WriteError> {
        self.entries = EntriesBuilder::default();
        self.layer_begin = self.next_block()? as usize;
        Ok(())
    }

    /// Notes an entry of the layer for the content index.
    pub(super) fn note(&mut self, path: &[u8], kind: &Kind, attributes: &Attributes) {
        self.entries.put(path, kind, attributes);
    }

    /// The same for a hard link.
    pub(super) fn note_link(&mut self, path: &[u8], target: &[u8]) {
        self.entries.hard_link(path, target);
    }

    /// Ends a layer that was applied, and gives it a section in the content index. `digest` and `diff_id` are
    /// `sha256:…`.
    pub fn end_layer(&mut self, digest: &str, diff_id: &str) -> Result<(), WriteError> {
        let entries = std::mem::take(&mut self.entries);
        let (first, next) = (self.layer_begin, self.next_block()? as usize);
        let number = |blocks: usize| u32::try_from(blocks).map_err(|_| ErofsError::TooManyBlocks);
        let (first, blocks) = (number(first)?, number(next - first)?);
        let draft = unhex(digest)
            .zip(unhex(diff_id))
            .and_then(|(digest, diff_id)| Draft::new(digest, diff_id, first, blocks, entries));
        self.end_with(digest, None, draft)
    }

    pub(super) fn end_with(
        &mut self,
        digest: &str,
        expected: Option<[u8; DIGEST]>,
        draft: Option<Draft>,
    ) -> Result<(), WriteError> {
        let section = match draft {
            Some(draft) => {
                let length = draft.length() as u64;
                let end = u64::from(self.next_block()?) * BLOCK_BYTES;
                let floor = self.floor.checked_sub(length).filter(|floor| *floor >= end);
                self.floor = floor.ok_or_else(|| self.too_large())?;
                Ok((draft, self.floor))
            }
            None => Err(String::new()),
        };
        self.hand_over(LayerEnd { digest: digest.to_owned(), expected, section })
    }

    /// Takes over a layer whose data is in this slot at its place already.
    pub(super) fn keep_data(&mut self, layer: &HeldLayer) -> Result<(), WriteError> {
        let at = self.next_block()?;
        let held = || WriteError::Held { digest: layer.data.digest.clone() };
        if layer.data.first_block != at {
            return Err(held());
        }
        let slot = self.slot.clone();
        self.take(&slot, layer, true)?;
        let (digest, section) = (layer.data.digest.clone(), Err(layer.section_sha256.clone()));
        self.hand_over(LayerEnd { digest, expected: Some(layer.data.hash), section })
    }

    /// Copies a layer's data from another slot.
    pub(super) fn copy_data(&mut self, from: &Window, layer: &HeldLayer) -> Result<(), WriteError> {
        self.take(from, layer, false)?;
        let bytes = u64::from(layer.data.blocks) * BLOCK_BYTES;
        self.counters.copied.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn take(&mut self, from: &Window, layer: &HeldLayer, there: bool) -> Result<(), WriteError> {
        self.drain(BLOCK)?;
        let begin = u64::from(layer.data.first_block) * BLOCK_BYTES;
        let length = u64::from(layer.data.blocks) * BLOCK_BYTES;
        let mut done = 0;
        while done < length {
            let mut buffer = self.empty_buffer()?;
            let part = (length - done).min(WRITE as u64);
            buffer.set_length(usize::try_from(part).expect("at most 1 MiB"));
            from.read_at(begin + done, &mut buffer).map_err(|error| {
                tracing::warn!(%error, digest = layer.data.digest, "a layer cannot be read from a slot");
                WriteError::Held { digest: layer.data.digest.clone() }
            })?;
            self.hand_over_blocks(buffer, there)?;
            done += part;
        }
        Ok(())
    }

    /// Writes `size` bytes of a file and gives its first block; 0 for an empty file.
    pub fn write_file(&mut self, data: &mut impl Read, size: u64) -> Result<u32, WriteError> {
        if size == 0 {
            return Ok(0);
        }
        let block = self.next_block()?;
        let mut left = size;
        while left > 0 {
            let mut buffer = match self.buffer.take() {
                Some(buffer) => buffer,
                None => self.empty_buffer()?,
            };
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.spare().len());
            let read = data.read(&mut buffer.spare()[..want]);
            let got = match read {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                read => read,
            };
            buffer.set_length(buffer.len() + *got.as_ref().unwrap_or(&0));
            left -= *got.as_ref().unwrap_or(&0) as u64;
            if left == 0 || got.is_err() {
                buffer.pad(BLOCK);
            }
            // Also of a file that ended early: there is a fixed number of buffers, and none may get lost.
            self.buffer = Some(buffer);
            self.drain(WRITE)?;
            got.map_err(WriteError::Source)?;
        }
        Ok(block)
    }

    /// Waits until all data is written, so that it can be read. Nothing but metadata may follow.
    pub fn settle(&mut self) -> Result<(), WriteError> {
        self.drain(BLOCK)?;
        let Some(lane) = self.lane.take() else { return Ok(()) };
        let done = lane.end()?;
        (self.leaves, self.sections) = (done.hashes.leaves, done.hashes.sections);
        self.unchecked = done.unchecked;
        Ok(())
    }

    /// Reads data that was settled, from a byte of the slot on.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<(), WriteError> {
        self.slot.read_at(at, buffer).map_err(|source| self.disk_error("read", source))
    }

    /// Writes the record: from here on the slot is complete.
    pub fn seal(mut self, record: &SlotRecord) -> Result<(), WriteError> {
        self.write_at("write the record of", self.region.record_at(), &record.encode()?)?;
        self.flush()
    }

    /// What writing cost so far.
    pub fn cost(&self) -> WriteCost {
        let Counters { written, skipped, copied } = &*self.counters;
        let [written, skipped, copied] =
            [written, skipped, copied].map(|count| count.load(Ordering::Relaxed));
        WriteCost { written, skipped, copied }
    }

    pub(super) fn next_block(&self) -> Result<u32, WriteError> {
        let block = self.blocks + self.buffer.as_ref().map_or(0, |buffer| buffer.len() / BLOCK);
        Ok(u32::try_from(block).map_err(|_| ErofsError::TooManyBlocks)?)
    }

    /// Hands the buffer over if there are at least `least` bytes in it. It holds whole blocks whenever it is full, and
    /// at the end of each file.
    fn drain(&mut self, least: usize) -> Result<(), WriteError> {
        match self.buffer.take_if(|buffer| buffer.len() >= least) {
            Some(buffer) => self.hand_over_blocks(buffer, false),
            None => Ok(()),
        }
    }

    fn hand_over_blocks(&mut self, buffer: AlignedBuffer, there: bool) -> Result<(), WriteError> {
        let at = self.blocks as u64 * BLOCK_BYTES;
        self.check_room(at + buffer.len() as u64)?;
        self.blocks += buffer.len() / BLOCK;
        self.send(Work::Blocks { at, buffer, there })
    }

    fn hand_over(&mut self, end: LayerEnd) -> Result<(), WriteError> {
        self.drain(BLOCK)?;
        self.send(Work::LayerEnd(end))
    }

    fn send(&mut self, work: Work) -> Result<(), WriteError> {
        if self.lane.as_ref().is_some_and(|lane| lane.send(work)) { Ok(()) } else { Err(self.broken()) }
    }

    fn empty_buffer(&mut self) -> Result<AlignedBuffer, WriteError> {
        let buffer = self.lane.as_mut().and_then(Lane::buffer);
        buffer.ok_or_else(|| self.broken())
    }

    /// Why a thread ended early; ending all of them tells.
    fn broken(&mut self) -> WriteError {
        let ended = self.lane.take().map(Lane::end);
        let after = || self.disk_error("write", io::Error::other("data after the data was settled"));
        ended.and_then(Result::err).unwrap_or_else(after)
    }

    fn check_room(&self, end: u64) -> Result<(), WriteError> {
        if end > self.floor { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> WriteError {
        WriteError::TooLarge { slot: self.region.name.clone(), length: self.region.length }
    }

    fn write_at(&mut self, operation: &'static str, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.counters.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.slot.write_at(at, bytes).map_err(|source| self.disk_error(operation, source))
    }

    fn flush(&self) -> Result<(), WriteError> {
        self.slot.flush().map_err(|source| self.disk_error("flush", source))
    }

    fn disk_error(&self, operation: &'static str, source: io::Error) -> WriteError {
        WriteError::Disk { operation, slot: self.region.name.clone(), source }
    }
}

/// Whether something was ever written where data begins. Elsewhere there is nothing to compare with.
fn was_written(slot: &Window) -> io::Result<bool> {
    let mut beginning = vec![0; LOOK.min(usize::try_from(slot.length()).unwrap_or(LOOK))];
    slot.read_at(0, &mut beginning)?;
    Ok(beginning.iter().any(|byte| *byte != 0))
}
