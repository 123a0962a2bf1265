//! The superblock (`struct erofs_super_block`), 1024 bytes into block 0.

use super::BLOCK;

const AT: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
/// The checksum holds, and inodes carry their own modification time.
const COMPATIBLE: u32 = 1 | 2;

/// Block 0.
pub fn encode(root: u16, inodes: u64, blocks: u32, meta_block: u32, uuid: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut set = |at: usize, bytes: &[u8]| block[AT + at..AT + at + bytes.len()].copy_from_slice(bytes);
    set(0, &MAGIC.to_le_bytes());
    set(8, &COMPATIBLE.to_le_bytes());
    set(12, &[BLOCK_BITS]);
    set(14, &root.to_le_bytes());
    set(16, &inodes.to_le_bytes());
    set(36, &blocks.to_le_bytes());
    set(40, &meta_block.to_le_bytes());
    set(48, &uuid);
    let checksum = crc32c(&block[AT..]);
    block[AT + 4..AT + 8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// CRC-32C (Castagnoli, reflected) from all ones and without the final inversion, as the kernel's `crc32c(~0, …)`.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 },
        )
    })
}
