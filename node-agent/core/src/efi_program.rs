//! Programs for UEFI, of which a Linux kernel is one: whether one bears a signature, which firmware with Secure Boot on asks for.
//!
//! By whom it was made, and whether it holds, is judged by what starts the program alone: the machine's own keys say so.
//!
//! Format: PE/COFF of Microsoft, sections "Optional Header Data Directories" and "The Attribute Certificate Table". All numbers
//! are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0, 2 | `MZ` |
//! | 0x3c, 4 | where the header is |
//! | header, 4 | `PE\0\0`, before 20 bytes that are not looked at |
//! | + 24, 2 | 0x20b, and directories from byte 136 on; or 0x10b (32 bits), and from 120 on |
//! | directories - 4, 4 | how many there are |
//! | directories + 32, 4 and 4 | the fifth: where the table of signatures is in the file, and its bytes |
//! | table, 4 | bytes of its first signature, with these fields |
//! | table + 6, 2 | 2: PKCS #7, the one kind that firmware takes |

const HEADER_AT: usize = 0x3c;
const MAGIC: usize = 24;
const MAGIC_32: u16 = 0x10b;
const MAGIC_64: u16 = 0x20b;
const DIRECTORIES_32: usize = MAGIC + 96;
const DIRECTORIES_64: usize = MAGIC + 112;
const DIRECTORY_BYTES: usize = 8;
/// Place of the table of signatures among the directories.
const SIGNATURES: usize = 4;
const ENTRY_HEADER: usize = 8;
const KIND_AT: usize = 6;
const PKCS7: u16 = 2;

/// Programs on a boot partition that bear no signature, of those that a machine starts from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsigned {
    /// Those of the boot loader, by their paths on the partition; one that has to be there and is not bears none.
    pub loaders: Vec<&'static str>,
    /// The slots whose kernels bear none.
    pub kernels: Vec<String>,
}

/// Whether a program bears a signature; nothing else than a whole program does.
pub fn bears_signature(program: &[u8]) -> bool {
    signature(program).is_some()
}

/// The first signature's bytes, with its header.
fn signature(program: &[u8]) -> Option<&[u8]> {
    if !program.starts_with(b"MZ") {
        return None;
    }
    let header = program.get(number(program, HEADER_AT)?..).filter(|header| header.starts_with(b"PE\0\0"))?;
    let directories = match half(header, MAGIC)? {
        MAGIC_64 => DIRECTORIES_64,
        MAGIC_32 => DIRECTORIES_32,
        _ => return None,
    };
    let directory = directories + SIGNATURES * DIRECTORY_BYTES;
    if number(header, directories - 4)? <= SIGNATURES {
        return None;
    }
    let (at, length) = (number(header, directory)?, number(header, directory + 4)?);
    let table = program.get(at..at.checked_add(length)?)?;
    let first = table.get(..number(table, 0)?)?;
    (first.len() > ENTRY_HEADER && half(first, KIND_AT)? == PKCS7).then_some(first)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*four)).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk::<2>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As small a program as has a place for a signature, and `table` behind it.
    fn program(magic: u16, table: &[u8]) -> Vec<u8> {
        let directories = 64 + if magic == MAGIC_64 { DIRECTORIES_64 } else { DIRECTORIES_32 };
        let mut bytes = vec![0; directories + 16 * DIRECTORY_BYTES];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[HEADER_AT] = 64;
        bytes[64..68].copy_from_slice(b"PE\0\0");
        bytes[64 + MAGIC..64 + MAGIC + 2].copy_from_slice(&magic.to_le_bytes());
        bytes[directories - 4] = 16;
        if !table.is_empty() {
            let (at, length) = (u32::try_from(bytes.len()).unwrap(), u32::try_from(table.len()).unwrap());
            bytes[directories + 32..directories + 36].copy_from_slice(&at.to_le_bytes());
            bytes[directories + 36..directories + 40].copy_from_slice(&length.to_le_bytes());
        }
        bytes.extend(table);
        bytes
    }

    const SIGNATURE: [u8; 16] = [12, 0, 0, 0, 0, 2, 2, 0, 0x30, 0x82, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_signature_is_seen_in_programs_of_either_size() {
        for magic in [MAGIC_32, MAGIC_64] {
            assert!(bears_signature(&program(magic, &SIGNATURE)));
            assert!(!bears_signature(&program(magic, &[])));
        }
        assert!(!bears_signature(&program(0x107, &SIGNATURE)));
    }

    #[test]
    fn what_is_cut_off_bears_none() {
        let whole = program(MAGIC_64, &SIGNATURE);
        for length in 0..whole.len() {
            assert!(!bears_signature(&whole[..length]), "{length} bytes");
        }
    }

    #[test]
    fn a_table_without_a_signature_that_firmware_takes_is_none() {
        let of_another_kind = [12, 0, 0, 0, 0, 2, 1, 0, 0x30, 0x82, 0, 0, 0, 0, 0, 0];
        let without_content = [8, 0, 0, 0, 0, 2, 2, 0];
        for table in [&of_another_kind[..], &without_content, &[0; 16]] {
            assert!(!bears_signature(&program(MAGIC_64, table)), "{table:?}");
        }
        let mut too_few_directories = program(MAGIC_64, &SIGNATURE);
        too_few_directories[64 + DIRECTORIES_64 - 4] = 4;
        assert!(!bears_signature(&too_few_directories));
    }
}
