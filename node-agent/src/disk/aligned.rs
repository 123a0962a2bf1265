//! Buffers that the kernel can hand to a disk as they are.

use std::ops::{Deref, DerefMut};

/// Bytes to which places, lengths and addresses are rounded for direct I/O: no disk has larger logical blocks.
pub const ALIGNMENT: usize = 4096;

/// Bytes whose address is a multiple of [`ALIGNMENT`], with a fixed capacity.
#[derive(Debug)]
pub struct AlignedBuffer {
    /// Larger than the capacity by what the alignment may take, and never reallocated.
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// An empty buffer for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        assert!(start <= ALIGNMENT, "bytes can be aligned to anything");
        Self { bytes, start, length: 0 }
    }

    /// Bytes that it can hold.
    pub fn capacity(&self) -> usize {
        self.bytes.len() - ALIGNMENT
    }

    /// Makes it `length` bytes long; those that were not there before hold anything.
    pub fn set_length(&mut self, length: usize) {
        assert!(length <= self.capacity(), "callers never ask for more than the capacity");
        self.length = length;
    }

    /// Everything between its length and its capacity.
    pub fn spare(&mut self) -> &mut [u8] {
        let end = self.start + self.capacity();
        &mut self.bytes[self.start + self.length..end]
    }

    /// Appends as much of `bytes` as fits; gives how much.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity() - self.length);
        self.spare()[..count].copy_from_slice(&bytes[..count]);
        self.length += count;
        count
    }

    /// Appends zeros up to a multiple of `unit`, of which the capacity is one.
    pub fn pad(&mut self, unit: usize) {
        let end = self.length.next_multiple_of(unit);
        let count = end - self.length;
        self.spare()[..count].fill(0);
        self.length = end;
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// Whether direct I/O can take these bytes to or from this place.
pub fn is_aligned(at: u64, bytes: &[u8]) -> bool {
    at.is_multiple_of(ALIGNMENT as u64)
        && bytes.len().is_multiple_of(ALIGNMENT)
        && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_there_and_aligned() {
        let mut buffer = AlignedBuffer::new(2 * ALIGNMENT);
        assert_eq!(buffer.append(&[7; 100]), 100);
        buffer.pad(ALIGNMENT);
        assert!(is_aligned(0, &buffer) && !is_aligned(512, &buffer) && !is_aligned(0, &buffer[1..]));
        assert_eq!((&buffer[..100], &buffer[100..]), (&[7; 100][..], &[0; ALIGNMENT - 100][..]));
        assert_eq!(buffer.append(&[8; 2 * ALIGNMENT]), ALIGNMENT);
        assert_eq!(buffer.len(), buffer.capacity());
    }
}
