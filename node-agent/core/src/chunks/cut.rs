//! Where a file is cut into chunks: by eStargz behind so many bytes, by containers/storage by what is near a place alone, so that a change in a file moves no
//! cut that is far from it. By the same rule the chunks of a file that a slot has are found.
//!
//! The rule is in `pkg/chunked/compressor/rollsum.go` and `compressor.go` there. 1024 zeros or more in a row are a chunk of
//! their own. Elsewhere a sum goes along over the last 64 bytes, and a chunk ends behind each byte with which the lowest
//! 16 bits of `outer` are ones; that makes chunks of 64 KiB on average. With each byte that comes and the one that leaves:
//!
//! | part of the sum | at the beginning, as after 64 zeros | changes by |
//! |---|---|---|
//! | `inner` | 64 · 31 | what comes, less what leaves |
//! | `outer` | 64 · 63 · 31 | the new `inner`, less 64 times what leaves and 31 |

use sha2::{Digest as _, Sha256};

/// Bytes that the sum is about.
const WINDOW: usize = 64;
const OFFSET: u32 = 31;
/// Of so many bits all are set where a chunk ends.
const ENDS: u32 = (1 << 16) - 1;
/// Zeros that are a chunk of their own.
const HOLE: usize = 1024;
const ZEROS: [u8; HOLE] = [0; HOLE];

/// A chunk that is not of zeros alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the file it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// SHA-256 of these.
    pub digest: [u8; 32],
}

/// Cuts a file that comes bit by bit.
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    /// Bytes of each chunk, if that is the rule.
    every: Option<u64>,
    sum: Sum,
    hash: Sha256,
    /// Where the chunk begins that is not yet ended, and its bytes so far.
    offset: u64,
    length: u64,
    /// Zeros behind it, of which is not known yet whether they belong to it.
    zeros: u64,
}

impl Cutter {
    /// One that cuts behind each `every` bytes, as eStargz does.
    pub fn of_length(every: u64) -> Self {
        Self { every: Some(every.max(1)), ..Self::default() }
    }

    /// Takes the next bytes of the file, and gives each chunk that ends to `found`.
    pub fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece)) {
        match self.every {
            Some(every) => self.feed_by_length(every, bytes, found),
            None => self.feed_by_content(bytes, found),
        }
    }

    fn feed_by_length(&mut self, every: u64, mut bytes: &[u8], found: &mut impl FnMut(Piece)) {
        while !bytes.is_empty() {
            let left = usize::try_from(every - self.length).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at(left.min(bytes.len()));
            self.take(part);
            if self.length == every {
                self.end(found);
            }
            bytes = rest;
        }
    }

    fn feed_by_content(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece)) {
        // Bytes before this are hashed, or are among the zeros.
        let mut done = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == 0 {
                self.take(&bytes[done..at]);
                done = at + 1;
                self.zeros += 1;
                if self.zeros == HOLE as u64 {
                    self.end(found);
                }
                continue;
            }
            self.leave_zeros(found);
            if self.sum.roll(*byte) {
                self.take(&bytes[done..=at]);
                done = at + 1;
                self.end(found);
            }
        }
        self.take(&bytes[done..]);
    }

    /// Takes the file's end.
    pub fn finish(mut self, found: &mut impl FnMut(Piece)) {
        self.leave_zeros(found);
        self.end(found);
    }

    /// Something else than zeros comes.
    fn leave_zeros(&mut self, found: &mut impl FnMut(Piece)) {
        let zeros = std::mem::take(&mut self.zeros);
        if zeros >= HOLE as u64 {
            self.offset += zeros;
            self.sum = Sum::default();
            return;
        }
        for _ in 0..zeros {
            self.take(&ZEROS[..1]);
            if self.sum.roll(0) {
                self.end(found);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.hash.update(bytes);
            self.length += bytes.len() as u64;
        }
    }

    fn end(&mut self, found: &mut impl FnMut(Piece)) {
        let length = std::mem::take(&mut self.length);
        if length > 0 {
            found(Piece { offset: self.offset, length, digest: self.hash.finalize_reset().into() });
            self.offset += length;
        }
    }
}

#[derive(Clone, Debug)]
struct Sum {
    inner: u32,
    outer: u32,
    window: [u8; WINDOW],
    at: usize,
}

impl Default for Sum {
    fn default() -> Self {
        let size = u32::try_from(WINDOW).expect("it is 64");
        Self { inner: size * OFFSET, outer: size * (size - 1) * OFFSET, window: [0; WINDOW], at: 0 }
    }
}

impl Sum {
    /// Goes on by a byte; whether a chunk ends behind it.
    fn roll(&mut self, comes: u8) -> bool {
        let leaves = u32::from(std::mem::replace(&mut self.window[self.at], comes));
        self.at = (self.at + 1) % WINDOW;
        self.inner = self.inner.wrapping_add(u32::from(comes)).wrapping_sub(leaves);
        let window = u32::try_from(WINDOW).expect("it is 64");
        self.outer = self.outer.wrapping_add(self.inner).wrapping_sub(window * (leaves + OFFSET));
        self.outer & ENDS == ENDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, mut state: u32) -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            state.to_be_bytes()[1]
        };
        (0..count).map(|_| next()).collect()
    }

    fn cut(file: &[u8], step: usize) -> Vec<Piece> {
        let (mut pieces, mut cutter) = (Vec::new(), Cutter::default());
        let mut found = |piece| pieces.push(piece);
        file.chunks(step).for_each(|bytes| cutter.feed(bytes, &mut found));
        cutter.finish(&mut found);
        pieces
    }

    /// The chunks that containers/storage 1.59.1 makes of the same bytes, but those of zeros.
    const CHUNKS: [(u64, u64); 18] = [
        (2000, 49253),
        (51253, 65256),
        (116_509, 41131),
        (157_640, 11963),
        (169_603, 77785),
        (247_388, 18138),
        (265_526, 75174),
        (340_700, 35905),
        (376_605, 27418),
        (405_047, 25472),
        (430_519, 13729),
        (444_248, 90340),
        (534_588, 23632),
        (558_220, 34500),
        (592_720, 12327),
        (610_047, 10847),
        (620_894, 11120),
        (632_014, 48633),
    ];

    #[test]
    fn a_file_is_cut_behind_so_many_bytes() {
        let file = noise(2500, 1);
        for step in [1, 7, 1000, 2500] {
            let (mut pieces, mut cutter) = (Vec::new(), Cutter::of_length(1000));
            let mut found = |piece: Piece| pieces.push(piece);
            file.chunks(step).for_each(|bytes| cutter.feed(bytes, &mut found));
            cutter.finish(&mut found);
            let places: Vec<_> = pieces.iter().map(|piece| (piece.offset, piece.length)).collect();
            assert_eq!(places, [(0, 1000), (1000, 1000), (2000, 500)]);
            assert_eq!(pieces[1].digest[..], Sha256::digest(&file[1000..2000])[..]);
        }
    }

    #[test]
    fn a_file_is_cut_where_containers_storage_cuts_it() {
        let zeros = |count| vec![0; count];
        let file = [
            zeros(2000),
            noise(400_000, 1),
            zeros(1023),
            noise(1000, 2),
            zeros(1024),
            noise(200_000, 3),
            zeros(5000),
            noise(70_000, 4),
            zeros(600),
        ]
        .concat();
        let pieces = cut(&file, file.len());
        let places: Vec<_> = pieces.iter().map(|piece| (piece.offset, piece.length)).collect();
        assert_eq!(places, CHUNKS);
        for piece in &pieces {
            let begin = usize::try_from(piece.offset).unwrap();
            let bytes = &file[begin..begin + usize::try_from(piece.length).unwrap()];
            assert_eq!(piece.digest[..], Sha256::digest(bytes)[..], "at {begin}");
        }
        // Where the bytes are cut on their way does not matter.
        assert!([1, 7, 4096, 65_537].into_iter().all(|step| cut(&file, step) == pieces));
        assert!(cut(b"", 1).is_empty() && cut(&zeros(1024), 100).is_empty());
        assert_eq!(cut(&zeros(1023), 100).len(), 1);
    }
}
