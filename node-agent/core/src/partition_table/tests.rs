use proptest::prelude::*;

use super::*;

/// A table as any program makes it for a disk: partitions one behind the other, with so many blocks each.
pub(crate) fn table(disk: Blocks, partitions: &[(&str, u64)]) -> Table {
    let mut entries = vec![0; 128 * ENTRY_BYTES];
    let mut first = (1 << 20) / disk.size;
    for ((name, blocks), entry) in partitions.iter().zip(entries.chunks_exact_mut(ENTRY_BYTES)) {
        entry[..TYPE_BYTES].fill(7);
        entry[FIRST_BLOCK..LAST_BLOCK].copy_from_slice(&first.to_le_bytes());
        entry[LAST_BLOCK..LAST_BLOCK + 8].copy_from_slice(&(first + blocks - 1).to_le_bytes());
        for (pair, unit) in entry[NAME..].chunks_exact_mut(2).zip(name.encode_utf16()) {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
        first += blocks;
    }
    let mut header = Header([0; HEADER_BYTES]);
    header.set(0, SIGNATURE);
    header.set(LENGTH, &92_u32.to_le_bytes());
    header.set(THIS, &FIRST_AT.to_le_bytes());
    header.set(OTHER, &(disk.count - 1).to_le_bytes());
    header.set(ENTRIES_AT, &FIRST_ENTRIES_AT.to_le_bytes());
    header.set(ENTRIES, &128_u32.to_le_bytes());
    header.set(BYTES_OF_ENTRY, &128_u32.to_le_bytes());
    let table = Table { header, entries };
    let [first, _] = table.copies(disk).unwrap();
    read(&first, disk).unwrap()
}

pub(crate) fn read(copy: &Copy, disk: Blocks) -> Result<Table, TableError> {
    let header = Header::parse(&copy.header, copy.header_at / disk.size)?;
    let length = header.entries_length();
    assert_eq!(header.entries_at() * disk.size, copy.entries_at);
    Table::new(header, copy.entries[..length].to_vec())
}

const DISK: Blocks = Blocks { count: 1 << 20, size: 512 };

#[test]
fn both_copies_say_the_same() {
    for size in [512, 4096] {
        let disk = Blocks { size, ..DISK };
        let table = table(disk, &[("one", 100), ("two", 5000)]);
        let copies = table.copies(disk).unwrap();
        let [first, second] = copies.each_ref().map(|copy| read(copy, disk).unwrap());
        assert_eq!(first, table);
        assert!(first.partitions().eq(second.partitions()) && first.end() == second.end());
        // From the second alone come the same two.
        assert_eq!(second.copies(disk).unwrap(), copies);
        assert_eq!(copies[1].header_at, (disk.count - 1) * size);
        assert_eq!(copies[1].entries_at + (16 << 10), copies[1].header_at);
        assert_eq!(table.last_usable(disk) + 1, copies[1].entries_at / size);
    }
}

#[test]
fn what_is_no_table_is_told() {
    let whole = table(DISK, &[("one", 100)]);
    let [copy, _] = whole.copies(DISK).unwrap();
    let parse = |at: usize, byte: u8| {
        let mut block = copy.header.clone();
        block[at] = byte;
        Header::parse(&block, FIRST_AT)
    };
    assert_eq!(parse(0, b'X'), Err(TableError::NoHeader));
    assert_eq!(parse(60, 9), Err(TableError::Damaged));
    assert_eq!(Header::parse(&copy.header, 2), Err(TableError::Damaged));
    assert_eq!(Header::parse(&copy.header[..91], 1), Err(TableError::NoHeader));
    let with = |at: usize, word: u32| {
        let mut header = whole.header.clone();
        header.set(at, &word.to_le_bytes());
        let checksum = header.checksum();
        header.set(CHECKSUM, &checksum.to_le_bytes());
        Header::parse(&header.0, FIRST_AT)
    };
    assert_eq!(with(ENTRIES, u32::MAX), Err(TableError::Form(u32::MAX, 128)));
    assert_eq!(with(BYTES_OF_ENTRY, 256), Err(TableError::Form(128, 256)));
    assert_eq!(with(LENGTH, 512), Err(TableError::Damaged));
    let mut entries = whole.entries.clone();
    entries[3000] ^= 1;
    assert_eq!(Table::new(whole.header.clone(), entries), Err(TableError::Damaged));
}

#[test]
fn a_disk_that_became_smaller_has_no_place_for_it() {
    let table = table(DISK, &[("one", 100_000)]);
    for count in [0, 1, 3, 40, 100_000, 102_047 + 33] {
        assert!(matches!(table.copies(Blocks { count, ..DISK }), Err(TableError::Beyond { .. })), "{count}");
    }
    assert!(table.copies(Blocks { count: 102_047 + 34, ..DISK }).is_ok());
}

#[test]
fn a_boot_sector_protects_the_whole_disk() {
    let mut sector = [0; 512];
    assert_eq!(protecting(&sector, DISK), None);
    sector[RECORDS + RECORD + KIND] = PROTECTIVE;
    sector[RECORDS + RECORD + FIRST_SECTOR] = 1;
    sector[RECORDS + RECORD + SECTORS] = 100;
    let new = protecting(&sector, DISK).unwrap();
    assert_eq!(new[RECORDS + RECORD + SECTORS..][..4], ((1_u32 << 20) - 1).to_le_bytes());
    assert_eq!(protecting(&new, DISK), None);
    let huge = protecting(&sector, Blocks { count: 1 << 40, ..DISK }).unwrap();
    assert_eq!(huge[RECORDS + RECORD + SECTORS..][..4], [0xFF; 4]);
    assert_eq!(protecting(&huge, DISK), None, "never less");
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_and_nothing_worse(mut block in prop::collection::vec(any::<u8>(), 0..600), fix: bool) {
        if fix && block.len() >= HEADER_BYTES {
            block[..8].copy_from_slice(SIGNATURE);
            block[LENGTH..LENGTH + 4].copy_from_slice(&92_u32.to_le_bytes());
            block[BYTES_OF_ENTRY..BYTES_OF_ENTRY + 4].copy_from_slice(&128_u32.to_le_bytes());
            let header = Header(*block.first_chunk().unwrap());
            block[CHECKSUM..CHECKSUM + 4].copy_from_slice(&header.checksum().to_le_bytes());
        }
        if let Ok(header) = Header::parse(&block, 1) {
            prop_assert!(header.entries_length() <= 128 << 10);
        }
    }

    /// Also entries that no program would write.
    #[test]
    fn any_entries_are_placed_or_refused(
        garbage in prop::collection::vec(any::<u8>(), 128 * ENTRY_BYTES),
        count: u64,
        big: bool,
    ) {
        let mut table = table(DISK, &[]);
        table.entries = garbage;
        let disk = Blocks { count: count / 4096, size: if big { 4096 } else { 512 } };
        if let Ok(copies) = table.copies(disk) {
            for copy in copies {
                prop_assert_eq!(read(&copy, disk).unwrap().entries, table.entries.clone());
            }
        }
    }
}
