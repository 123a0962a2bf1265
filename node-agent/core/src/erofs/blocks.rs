//! The metadata as a stream of blocks.

use super::BLOCK;

/// Makes blocks of pieces that come in the order of their places.
pub(super) struct Blocks<'a, E> {
    sink: &'a mut dyn FnMut(&[u8]) -> Result<(), E>,
    block: Vec<u8>,
    /// Bytes of the blocks that were given away.
    given: usize,
}

impl<'a, E> Blocks<'a, E> {
    pub(super) fn new(sink: &'a mut dyn FnMut(&[u8]) -> Result<(), E>) -> Self {
        Self { sink, block: Vec::with_capacity(BLOCK), given: 0 }
    }

    /// Puts bytes at a place, which is behind all that was put before.
    pub(super) fn put(&mut self, at: usize, mut bytes: &[u8]) -> Result<(), E> {
        self.pad(at)?;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            self.give_if_full()?;
        }
        Ok(())
    }

    /// Puts zeros up to a place.
    pub(super) fn pad(&mut self, to: usize) -> Result<(), E> {
        debug_assert!(to >= self.given + self.block.len(), "places come in order");
        while self.given + self.block.len() < to {
            self.block.resize((to - self.given).min(BLOCK), 0);
            self.give_if_full()?;
        }
        Ok(())
    }

    fn give_if_full(&mut self) -> Result<(), E> {
        if self.block.len() == BLOCK {
            (self.sink)(&self.block)?;
            self.block.clear();
            self.given += BLOCK;
        }
        Ok(())
    }
}
