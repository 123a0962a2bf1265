//! The section list: which sections of the [content index](crate::content_index) a slot that is being written has for sure.
//!
//! Data of a layer reaches its slot before the layer's digest is known, and whoever serves the layer may have it hold
//! what looks like a section. A section of a slot that is not complete is believed only if a list names it: lists lie in
//! the room of the slot record, which data never reaches. There is room for two, so that one is whole while the other is
//! written; what either names was written by us.
//!
//! Layout, all integers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `EKLIST01` |
//! | 8 | 32 | SHA-256 of all that follows |
//! | 40 | 4 | number of sections |
//! | 44 | 32 each | SHA-256 of a section |

use sha2::{Digest as _, Sha256};

use crate::slot_record::RECORD_LENGTH;

/// Layers that an image can have, and with that sections of a slot.
pub const SECTIONS_MAX: usize = 127;
/// Bytes of a list: 44 + 127 × 32 are 4108, in whole blocks.
pub const LIST_LENGTH: usize = 8192;
/// Where the lists are, in bytes from the begin of the slot record.
pub const LISTS_AT: [u64; 2] = [RECORD_LENGTH / 4, RECORD_LENGTH / 4 + LIST_LENGTH as u64];
const _: () = assert!(LISTS_AT[1] + LIST_LENGTH as u64 <= RECORD_LENGTH);
const _: () = assert!(SECTIONS_AT + SECTIONS_MAX * HASH <= LIST_LENGTH);

const MAGIC: &[u8; 8] = b"EKLIST01";
const HASH: usize = 32;
const COUNT_AT: usize = 8 + HASH;
const SECTIONS_AT: usize = COUNT_AT + 4;

/// The bytes of a list, and where they belong: the place changes with each section. More than [`SECTIONS_MAX`] are left
/// out.
#[must_use]
pub fn encode(sections: &[[u8; HASH]]) -> (u64, Vec<u8>) {
    let sections = &sections[..sections.len().min(SECTIONS_MAX)];
    let mut bytes = vec![0; LIST_LENGTH];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    let count = u32::try_from(sections.len()).expect("at most 127");
    bytes[COUNT_AT..SECTIONS_AT].copy_from_slice(&count.to_le_bytes());
    for (place, section) in bytes[SECTIONS_AT..].chunks_exact_mut(HASH).zip(sections) {
        place.copy_from_slice(section);
    }
    let sum = Sha256::digest(&bytes[COUNT_AT..]);
    bytes[MAGIC.len()..COUNT_AT].copy_from_slice(&sum);
    (LISTS_AT[sections.len() % LISTS_AT.len()], bytes)
}

/// The sections that a list names; none where there is no list, or a damaged one.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Vec<[u8; HASH]>> {
    let bytes = bytes.get(..LIST_LENGTH)?;
    let sum = Sha256::digest(&bytes[COUNT_AT..]);
    if bytes[..MAGIC.len()] != *MAGIC || bytes[MAGIC.len()..COUNT_AT] != *sum {
        return None;
    }
    let count = u32::from_le_bytes(bytes[COUNT_AT..SECTIONS_AT].try_into().ok()?);
    let count = usize::try_from(count).ok().filter(|count| *count <= SECTIONS_MAX)?;
    Some(
        bytes[SECTIONS_AT..]
            .chunks_exact(HASH)
            .take(count)
            .map(|hash| hash.try_into().expect("32"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_its_place_changes() {
        let sections: Vec<[u8; HASH]> = (0..=126).map(|byte| [byte; HASH]).collect();
        for count in [0, 1, 2, 127] {
            let (at, bytes) = encode(&sections[..count]);
            assert_eq!((at, bytes.len()), (LISTS_AT[count % 2], LIST_LENGTH));
            assert_eq!(parse(&bytes).unwrap(), sections[..count]);
        }
    }

    #[test]
    fn what_is_damaged_names_nothing() {
        let (_, bytes) = encode(&[[1; HASH], [2; HASH]]);
        for at in [0, 8, 40, 44, 80, LIST_LENGTH - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged), None, "at {at}");
        }
        assert_eq!(parse(&bytes[1..]), None);
        assert_eq!(parse(&[]), None);
    }
}
