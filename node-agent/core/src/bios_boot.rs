//! GRUB's code for machines with BIOS: `boot.img`, which lies in a disk's first sector, and `core.img`, which that loads from
//! a partition of its own. Both come as files, and each is told here where the other is.
//!
//! Formats: GRUB 2.06, `grub-core/boot/i386/pc/boot.S` and `diskboot.S`, `include/grub/i386/pc/boot.h`; what an installer
//! writes into them: `util/setup.c`. All numbers are little-endian.
//!
//! | bytes of `boot.img` | what |
//! |---|---|
//! | 0, 2 | a jump over the place of a BIOS parameter block, which ends at 0x5a (`BPB_END`) |
//! | 0x5c, 8 | sector where `core.img` begins (`KERNEL_SECTOR`); 1 before an installer was there |
//! | 0x64, 1 | the BIOS's number of the disk, or 0xff for the one that it says (`BOOT_DRIVE`) |
//! | 0x66, 2 | a jump, without which a number that is no hard disk's is not believed (`DRIVE_CHECK`) |
//! | 0x1b8, 6 | the disk's signature (`WINDOWS_NT_MAGIC`): from here on the disk's own bytes stay |
//! | 0x1be, 64 | partition records, which are the disk's |
//! | 0x1fe, 2 | 0x55 0xaa |
//!
//! | bytes of `core.img` | what |
//! |---|---|
//! | 0x1e8, 12 | an entry of the list of sectors without sectors, which ends it: it grows downwards |
//! | 0x1f4, 8 | the list's first entry: sector from which on the rest is read |
//! | 0x1fc, 2 | how many sectors: grub-mkimage says so |
//! | 0x1fe, 2 | segment in memory where they go, 0x820 |

#[cfg(test)]
mod tests;

/// Bytes of a sector, the only ones that the BIOS and this code know.
pub const SECTOR: usize = 512;
/// Bytes of a boot sector that are code; the rest belongs to the disk.
const CODE: usize = 0x1b8;
/// What GRUB's own installer takes for the largest that fits into memory: up to 0x78000, from 0x9000 on.
const CORE_MAX: usize = 0x78000 - 0x9000;

const JUMP: u8 = 0xEB;
const KERNEL_SECTOR: usize = 0x5c;
const BOOT_DRIVE: usize = 0x64;
const DRIVE_CHECK: usize = 0x66;
const ANY_DRIVE: u8 = 0xFF;
const NOP: u8 = 0x90;
const SIGNATURE: usize = 0x1fe;
const SIGNATURE_IS: [u8; 2] = [0x55, 0xAA];

const LIST_END: usize = 0x1e8;
const LIST: usize = 0x1f4;
const LIST_LENGTH: usize = 0x1fc;
const LIST_SEGMENT: usize = 0x1fe;
const SEGMENT: u16 = 0x820;

/// Why an image's code cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BiosBootError {
    /// Not GRUB's first sector.
    #[error("boot.img is not GRUB's for BIOS: take that of GRUB's folder i386-pc")]
    Boot,
    /// Not what grub-mkimage makes.
    #[error("core.img is not GRUB's for BIOS: make it with `grub-mkimage -O i386-pc`")]
    Core,
    /// The memory below 1 MiB, or the partition, has no room for it.
    #[error("core.img has {bytes} bytes, and there is room for {room}: make it with fewer modules")]
    TooLarge {
        /// Bytes that it has.
        bytes: usize,
        /// Bytes that there could be.
        room: u64,
    },
}

/// The code, before it is known where it will lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiosBoot {
    boot: [u8; SECTOR],
    core: Vec<u8>,
}

/// What of the code is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiosState {
    /// Nothing.
    Absent,
    /// Both parts.
    Whole,
    /// Only `core.img`.
    NoBootSector,
    /// Only what loads it.
    NoCore,
}

impl BiosBoot {
    /// Reads both files.
    pub fn parse(boot: &[u8], core: &[u8]) -> Result<Self, BiosBootError> {
        let boot = boot.try_into().map_err(|_| BiosBootError::Boot)?;
        if !is_boot(&boot) || boot[SIGNATURE..] != SIGNATURE_IS {
            return Err(BiosBootError::Boot);
        }
        if core.len() > CORE_MAX {
            return Err(BiosBootError::TooLarge { bytes: core.len(), room: CORE_MAX as u64 });
        }
        let first = core.first_chunk::<SECTOR>().ok_or(BiosBootError::Core)?;
        let sectors = core.len().div_ceil(SECTOR) - 1;
        let counted = usize::from(short(first, LIST_LENGTH)) == sectors;
        if sectors == 0 || !counted || short(first, LIST_SEGMENT) != SEGMENT {
            return Err(BiosBootError::Core);
        }
        let mut core = core.to_vec();
        core.resize((sectors + 1) * SECTOR, 0);
        Ok(Self { boot, core })
    }

    /// `core.img` as it lies in a partition of `sectors` sectors, whose first one is sector `at` of the disk.
    pub fn core(&self, at: u64, sectors: u64) -> Result<Vec<u8>, BiosBootError> {
        let room = sectors.saturating_mul(SECTOR as u64);
        if self.core.len() as u64 > room {
            return Err(BiosBootError::TooLarge { bytes: self.core.len(), room });
        }
        let mut core = self.core.clone();
        core[LIST_END..LIST].fill(0);
        core[LIST..LIST_LENGTH].copy_from_slice(&(at + 1).to_le_bytes());
        Ok(core)
    }

    /// A disk's first sector with the code that loads `core.img` from sector `at` on, and with the disk's own signature and
    /// partition records.
    pub fn boot_sector(&self, disk: &[u8; SECTOR], at: u64) -> [u8; SECTOR] {
        let mut sector = *disk;
        sector[..CODE].copy_from_slice(&self.boot[..CODE]);
        sector[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&at.to_le_bytes());
        sector[BOOT_DRIVE] = ANY_DRIVE;
        // As GRUB's own installer does on a hard disk, for a BIOS that gives another number.
        sector[DRIVE_CHECK..DRIVE_CHECK + 2].fill(NOP);
        sector
    }
}

/// What there is, by a disk's first sector and the first one of a partition, which is sector `at` of the disk.
pub fn state(disk: &[u8; SECTOR], partition: &[u8; SECTOR], at: u64) -> BiosState {
    let boot = is_boot(disk) && long(disk, KERNEL_SECTOR) == at;
    let listed = short(partition, LIST_LENGTH) > 0 && short(partition, LIST_SEGMENT) == SEGMENT;
    match (boot, listed && long(partition, LIST) == at + 1) {
        (true, true) => BiosState::Whole,
        (true, false) => BiosState::NoCore,
        (false, true) => BiosState::NoBootSector,
        (false, false) => BiosState::Absent,
    }
}

/// The jump, and no other number of a disk than the one that is no number: other loaders have code there.
fn is_boot(sector: &[u8; SECTOR]) -> bool {
    sector[0] == JUMP && sector[BOOT_DRIVE] == ANY_DRIVE
}

fn short(sector: &[u8; SECTOR], at: usize) -> u16 {
    u16::from_le_bytes([sector[at], sector[at + 1]])
}

fn long(sector: &[u8; SECTOR], at: usize) -> u64 {
    sector[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
