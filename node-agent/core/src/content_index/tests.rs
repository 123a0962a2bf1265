use proptest::prelude::*;

use super::{entries::Change, *};
use crate::tree::{Attributes, Kind};

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Directory([].into())),
        (0..20_000_u64).prop_map(|length| Kind::File { block: 0, length }),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Kind::Symlink),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice(major, minor)),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice(major, minor)),
        Just(Kind::Fifo),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let xattrs = prop::collection::btree_map(bytes(), bytes(), 0..3);
    let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<i64>(), any::<u32>());
    let attributes = (numbers, xattrs).prop_map(|((mode, uid, gid, mtime, mtime_nanoseconds), xattrs)| {
        Attributes { mode, uid, gid, mtime, mtime_nanoseconds, xattrs }
    });
    prop_oneof![
        4 => (kind(), attributes).prop_map(|(kind, attributes)| Change::Put(kind, attributes)),
        1 => bytes().prop_map(Change::HardLink),
    ]
}

/// So many entries, each with its path.
fn changes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(Vec<u8>, Change)>> {
    prop::collection::vec((prop::collection::vec(0..4_u8, 0..20), change()), count)
}

/// The section of these entries, whose data begins at block 7; and the entries as they come back.
fn section(entries: &[(Vec<u8>, Change)]) -> (Vec<u8>, Vec<(Vec<u8>, Change)>) {
    let mut builder = EntriesBuilder::default();
    let mut next = 7;
    let mut expected = entries.to_vec();
    for (path, change) in &mut expected {
        match change {
            Change::Put(kind, attributes) => {
                if let Kind::File { block, length } = kind {
                    let blocks = u32::try_from(length.div_ceil(BLOCK as u64)).unwrap();
                    *block = if blocks == 0 { 0 } else { next };
                    next += blocks;
                }
                builder.put(path, kind, attributes);
            }
            Change::HardLink(target) => builder.hard_link(path, target),
        }
    }
    let draft = Draft::new([1; 32], [2; 32], 7, next - 7, builder).unwrap();
    (draft.finish([3; 32]), expected)
}

fn read(section: &Section, at: u32) -> Result<Vec<(Vec<u8>, Change)>, IndexError> {
    let mut entries = Vec::new();
    let mut reader = section.entries(at);
    while let Some((path, change)) = reader.next_entry()? {
        entries.push((path.to_vec(), change));
    }
    Ok(entries)
}

proptest! {
    #[test]
    fn a_section_gives_back_the_entries(entries in changes(0..30)) {
        let (bytes, expected) = section(&entries);
        prop_assert_eq!(section_length(&bytes[bytes.len() - FOOTER..]), Ok(bytes.len()));
        let section = Section::parse(bytes).unwrap();
        prop_assert_eq!(&section.data.diff_id, &format!("sha256:{}", "02".repeat(32)));
        prop_assert_eq!(section.data.hash, [3; 32]);
        prop_assert_eq!(read(&section, 7).unwrap(), expected);
    }

    #[test]
    fn a_damaged_section_is_refused(
        entries in changes(1..10),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (mut bytes, _) = section(&entries);
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        // What is neither content nor told by the end may be anything.
        let end = u32_at(&bytes, bytes.len() - FOOTER + 12) as usize;
        let padding = (end..bytes.len() - FOOTER).contains(&place) || place >= bytes.len() - 16;
        prop_assert_eq!(Section::parse(bytes).is_err(), !padding);
    }

    #[test]
    fn entries_of_nonsense_end(bytes in prop::collection::vec(any::<u8>(), 0..300), count in any::<u32>()) {
        let mut reader = entries::Reader::new(&bytes, count, 1, 5);
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}
