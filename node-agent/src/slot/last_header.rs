//! The header that was read last, also one that the library refuses or that is cut off: it may say which entry it was to be.

use std::{
    cell::RefCell,
    io::{self, Read},
    rc::Rc,
};

use tar::Header;

use super::entry;

const BLOCK: usize = 512;
/// Bytes of the field in which a name begins.
const NAME: usize = 100;

/// The last block of a stream, as far as it was read.
pub(super) struct LastBlock {
    bytes: [u8; BLOCK],
    /// Bytes of the stream that were read.
    end: u64,
}

/// A stream of which the last block is kept.
pub(super) struct Kept<R> {
    inner: R,
    last: Rc<RefCell<LastBlock>>,
}

impl<R: Read> Kept<R> {
    pub(super) fn new(inner: R) -> (Self, Rc<RefCell<LastBlock>>) {
        let last = Rc::new(RefCell::new(LastBlock { bytes: [0; BLOCK], end: 0 }));
        (Self { inner, last: Rc::clone(&last) }, last)
    }
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.last.borrow_mut().take(&buffer[..count]);
        Ok(count)
    }
}

impl LastBlock {
    /// Bytes of it that were read; none of them at the stream's beginning.
    fn filled(&self) -> usize {
        let rest = usize::try_from(self.end % BLOCK as u64).expect("less than a block");
        if rest == 0 && self.end > 0 { BLOCK } else { rest }
    }

    fn take(&mut self, mut read: &[u8]) {
        self.end += read.len() as u64;
        let filled = self.filled();
        read = &read[read.len().saturating_sub(filled)..];
        self.bytes[filled - read.len()..filled].copy_from_slice(read);
    }

    /// The name in the header that is at `at`, if that is this block and was read so far.
    pub(super) fn name(&self, at: u64) -> Option<Vec<u8>> {
        let filled = self.filled();
        if self.end != at + filled as u64 || filled < NAME {
            return None;
        }
        let mut header = Header::new_old();
        header.as_mut_bytes()[..filled].copy_from_slice(&self.bytes[..filled]);
        let name = entry::understood(&header).path_bytes().into_owned();
        (!name.is_empty()).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_is_kept_however_it_is_read() {
        let bytes: Vec<u8> = (0..1300_u32).map(|at| at.to_le_bytes()[0] | 1).collect();
        for step in [1, 7, 511, 512, 513, 1300] {
            let (mut kept, last) = Kept::new(&bytes[..]);
            let mut buffer = vec![0; step];
            while kept.read(&mut buffer).unwrap() > 0 {}
            let last = last.borrow();
            assert_eq!((last.end, last.filled()), (1300, 276));
            assert_eq!(last.bytes[..276], bytes[1024..], "{step}");
            assert_eq!(last.name(1024).unwrap(), bytes[1024..1124]);
            assert_eq!((last.name(512), last.name(1200)), (None, None));
        }
    }
}
