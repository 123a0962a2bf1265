use proptest::prelude::*;

use super::*;

/// As Debian's package has it, in the places that matter.
fn boot_img() -> Vec<u8> {
    let mut boot = vec![0x11; SECTOR];
    boot[..3].copy_from_slice(&[JUMP, 0x63, NOP]);
    boot[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&1u64.to_le_bytes());
    boot[BOOT_DRIVE] = ANY_DRIVE;
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[JUMP, 5]);
    boot[SIGNATURE..].copy_from_slice(&SIGNATURE_IS);
    boot
}

/// As grub-mkimage makes it, of so many bytes.
fn core_img(bytes: usize) -> Vec<u8> {
    let mut core = vec![0x22; bytes];
    let sectors = u16::try_from(bytes.div_ceil(SECTOR) - 1).unwrap();
    core[LIST..LIST_LENGTH].copy_from_slice(&2u64.to_le_bytes());
    core[LIST_LENGTH..LIST_SEGMENT].copy_from_slice(&sectors.to_le_bytes());
    core[LIST_SEGMENT..SECTOR].copy_from_slice(&SEGMENT.to_le_bytes());
    core
}

#[test]
fn each_part_is_told_where_the_other_is() {
    let grub = BiosBoot::parse(&boot_img(), &core_img(1300)).unwrap();
    let core = grub.core(128, 896).unwrap();
    assert_eq!(core.len(), 3 * SECTOR);
    assert_eq!(core[LIST..SECTOR], [129, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 8]);
    assert_eq!(core[LIST_END..LIST], [0; 12]);
    assert_eq!((&core[..LIST_END], &core[SECTOR..1300]), (&[0x22; 0x1e8][..], &[0x22; 788][..]));
    let sector = grub.boot_sector(&[0x33; SECTOR], 128);
    assert_eq!(sector[KERNEL_SECTOR..KERNEL_SECTOR + 8], [128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sector[BOOT_DRIVE..DRIVE_CHECK + 2], [ANY_DRIVE, 0x11, NOP, NOP]);
    assert_eq!(sector[DRIVE_CHECK + 2..CODE], [0x11; CODE - DRIVE_CHECK - 2]);
    // Signature and records are the disk's.
    assert_eq!(sector[CODE..], [0x33; SECTOR - CODE]);
}

#[test]
fn what_is_lost_is_known() {
    let grub = BiosBoot::parse(&boot_img(), &core_img(1300)).unwrap();
    let (sector, core) = (grub.boot_sector(&[0; SECTOR], 128), grub.core(128, 896).unwrap());
    let (first, nothing) = (core.first_chunk::<SECTOR>().unwrap(), &[0; SECTOR]);
    assert_eq!(state(nothing, nothing, 128), BiosState::Absent);
    assert_eq!(state(&sector, first, 128), BiosState::Whole);
    assert_eq!(state(&sector, nothing, 128), BiosState::NoCore);
    assert_eq!(state(nothing, first, 128), BiosState::NoBootSector);
    assert_eq!(state(&sector, first, 2048), BiosState::Absent);
}

#[test]
fn what_is_not_grubs_is_refused() {
    let (boot, core) = (boot_img(), core_img(1300));
    for wrong in [&boot[..511], &[0; SECTOR], &core[..SECTOR], &[]] {
        assert_eq!(BiosBoot::parse(wrong, &core), Err(BiosBootError::Boot));
    }
    // Only the first sector, one sector less than it says, another processor's, nothing.
    for wrong in [core_img(SECTOR), core[..1024].to_vec(), vec![0; 1300], Vec::new()] {
        assert_eq!(BiosBoot::parse(&boot, &wrong), Err(BiosBootError::Core));
    }
    let room = CORE_MAX as u64;
    let too_large = BiosBoot::parse(&boot, &core_img(CORE_MAX + 1));
    assert_eq!(too_large, Err(BiosBootError::TooLarge { bytes: CORE_MAX + 1, room }));
    let grub = BiosBoot::parse(&boot, &core).unwrap();
    assert_eq!(grub.core(128, 2), Err(BiosBootError::TooLarge { bytes: 1536, room: 1024 }));
    assert!(grub.core(128, 3).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(boot: Vec<u8>, core in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = BiosBoot::parse(&boot, &core);
        prop_assert!(BiosBoot::parse(&boot_img(), &core).is_err() || core.len() > SECTOR);
    }
}
