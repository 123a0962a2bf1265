use proptest::prelude::*;

use super::*;
use crate::partition_table::tests::{read, table as made};

const OURS: [(&str, u64); 4] =
    [("evenkeel-esp", 100), ("evenkeel-oem", 70), ("evenkeel-a", 300), ("evenkeel-state", 5_000)];
const END_OF_OURS: u64 = 2048 + 5_470;

fn disk(count: u64) -> Blocks {
    Blocks { count, size: 512 }
}

#[test]
fn a_disk_that_is_as_it_was_made_is_left_alone() {
    // As much as a layout leaves.
    let small = disk(END_OF_OURS + 2 * 2048);
    assert_eq!(table(&made(small, &OURS), small), Ok(None));
}

#[test]
fn on_a_larger_disk_the_state_partition_takes_the_rest() {
    let (small, large) = (disk(END_OF_OURS + 2048), disk(1 << 21));
    let before = made(small, &OURS);
    let after = table(&before, large).unwrap().unwrap();
    let last = |table: &Table| table.partitions().last().unwrap().last;
    assert_eq!((last(&before), last(&after)), (END_OF_OURS - 1, (1 << 21) - 34));
    assert!(before.partitions().take(3).eq(after.partitions().take(3)));
    let [first, second] = after.copies(large).unwrap();
    // Whichever copy is left after a power cut, nothing is done twice.
    for copy in [first, second] {
        assert_eq!(table(&read(&copy, large).unwrap(), large), Ok(None));
    }
}

#[test]
fn a_little_more_room_moves_the_second_copy_alone() {
    let (small, large) = (disk(END_OF_OURS + 2048), disk(END_OF_OURS + 4096));
    let before = made(small, &OURS);
    let after = table(&before, large).unwrap().unwrap();
    assert!(before.partitions().eq(after.partitions()));
    assert_eq!(after.copies(large).unwrap()[1].header_at, (END_OF_OURS + 4095) * 512);
}

#[test]
fn what_is_not_ours_or_has_become_smaller_is_not_touched() {
    let (small, large) = (disk(1 << 20), disk(1 << 21));
    let behind = [&OURS[..], &[("data", 100)]].concat();
    for others in [&behind[..], &[("evenkeel-state", 100)], &OURS[..3], &[]] {
        assert_eq!(table(&made(small, others), large), Ok(None), "{others:?}");
    }
    let shrunk = table(&made(small, &OURS), disk(END_OF_OURS));
    assert!(matches!(shrunk, Err(TableError::Beyond { .. })), "{shrunk:?}");
}

proptest! {
    #[test]
    fn nothing_but_the_state_partitions_end_ever_changes_and_it_never_shrinks(
        before in END_OF_OURS + 100..1 << 40,
        after in 0_u64..1 << 41,
        size in prop::sample::select(vec![512_u64, 4096]),
    ) {
        let (before, after) = (Blocks { count: before, size }, Blocks { count: after, size });
        let old = made(before, &OURS);
        let Ok(Some(new)) = table(&old, after) else { return Ok(()) };
        for (old, new) in old.partitions().zip(new.partitions()) {
            prop_assert!(new.last >= old.last && new.last <= old.last.max(after.count - 2 - (16 << 10) / size));
            prop_assert!(new.last == old.last || old.name == "evenkeel-state");
            prop_assert_eq!((old.first, old.name), (new.first, new.name));
        }
        let [first, second] = new.copies(after).unwrap();
        prop_assert_eq!(table(&read(&first, after).unwrap(), after), Ok(None));
        prop_assert_eq!(table(&read(&second, after).unwrap(), after), Ok(None));
    }

    #[test]
    fn any_superblock_is_read(bytes in prop::collection::vec(any::<u8>(), SUPERBLOCK_BYTES), partition: u64) {
        let mut superblock: [u8; SUPERBLOCK_BYTES] = bytes.try_into().unwrap();
        superblock[MAGIC_AT..MAGIC_AT + 2].copy_from_slice(&MAGIC);
        superblock[LOG_BLOCK_SIZE + 1..LOG_BLOCK_SIZE + 4].fill(0);
        superblock[LOG_BLOCK_SIZE] %= 8;
        if let Some(ext4) = Ext4::parse(&superblock)
            && let Some(blocks) = ext4.growth(partition)
        {
            prop_assert!(blocks > ext4.blocks.count && blocks * ext4.blocks.size <= partition);
        }
    }
}

fn superblock(blocks: u32, log: u32, incompatible: u32) -> [u8; SUPERBLOCK_BYTES] {
    let mut superblock = [0; SUPERBLOCK_BYTES];
    superblock[MAGIC_AT..MAGIC_AT + 2].copy_from_slice(&MAGIC);
    for (at, word) in
        [(BLOCKS_LOW, blocks), (LOG_BLOCK_SIZE, log), (INCOMPATIBLE, incompatible), (BLOCKS_HIGH, 1)]
    {
        superblock[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    superblock
}

#[test]
fn a_file_system_takes_whole_blocks_and_never_fewer() {
    let ext4 = Ext4::parse(&superblock(100, 2, 0)).unwrap();
    assert_eq!(ext4.blocks, Blocks { count: 100, size: 4096 });
    assert_eq!(ext4.growth(100 * 4096 + 4095), None);
    assert_eq!(ext4.growth(99 * 4096), None);
    assert_eq!(ext4.growth(101 * 4096), Some(101));
    // Block numbers of 32 bits.
    assert_eq!(ext4.growth(1 << 60), Some(u32::MAX.into()));
    let large = Ext4::parse(&superblock(100, 2, HAS_64_BITS)).unwrap();
    assert_eq!((large.blocks.count, large.growth(1 << 60)), ((1 << 32) + 100, Some(1 << 48)));
    assert_eq!(Ext4::parse(&[0; SUPERBLOCK_BYTES]), None);
    assert_eq!(Ext4::parse(&superblock(100, 7, 0)), None);
}
