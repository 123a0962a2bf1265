//! Bytes of a slot, mostly one file after the other: read by large aligned pieces.

use std::io;

use evenkeel_node_agent_core::erofs::BLOCK;

use crate::disk::{Window, aligned::AlignedBuffer};

const PIECE: usize = 1 << 20;

/// Reads a slot.
pub(super) struct SlotReader {
    slot: Window,
    buffer: AlignedBuffer,
    at: u64,
}

impl SlotReader {
    pub(super) fn new(slot: Window) -> Self {
        Self { slot, buffer: AlignedBuffer::new(PIECE), at: 0 }
    }

    /// Gives `length` bytes from byte `at` on to `take`, piece by piece.
    pub(super) fn read(
        &mut self,
        mut at: u64,
        length: u64,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = at.checked_add(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        while at < end {
            let piece = self.piece(at)?;
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            take(&piece[..count])?;
            at += count as u64;
        }
        Ok(())
    }

    /// Some bytes from a place on. What is not in the buffer is read, with what is behind it.
    fn piece(&mut self, at: u64) -> io::Result<&[u8]> {
        let inside = at.checked_sub(self.at).filter(|skip| *skip < self.buffer.len() as u64);
        if inside.is_none() {
            self.fill(at - at % BLOCK as u64)?;
        }
        let skip = usize::try_from(at - self.at).expect("less than the buffer has");
        Ok(&self.buffer[skip..])
    }

    fn fill(&mut self, at: u64) -> io::Result<()> {
        let left = self.slot.length().checked_sub(at).filter(|left| *left > 0);
        let left = usize::try_from(left.ok_or(io::ErrorKind::UnexpectedEof)?).unwrap_or(PIECE);
        self.buffer.set_length(left.min(PIECE));
        self.at = at;
        let read = self.slot.read_at(at, &mut self.buffer);
        if read.is_err() {
            self.buffer.set_length(0);
        }
        read
    }
}
