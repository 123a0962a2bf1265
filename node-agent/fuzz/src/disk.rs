//! What is read from a disk that something else may have written.

use std::{io, path::Path};

use evenkeel_node_agent::disk::{BlockDevice, Disk};
use evenkeel_node_agent_core::{
    bios_boot::{self, BiosBoot, BiosState},
    boot_entry::{BootEntry, EntryBody, EntryName, next_boot, next_generation},
    content_index::{FOOTER, Section, entries::Change, section_length},
    erofs_read::read_file,
    grub_env::{GrubEnv, LENGTH},
    section_list,
    slot_record::SlotRecord,
    tree::Tree,
};

use sha2::{Digest as _, Sha256};

use super::{halves, memory::Memory};

const SECTOR: usize = 512;
/// Where in a boot sector the disk's own bytes begin.
const DISKS_OWN: usize = 0x1b8;
/// A table of 128 entries of 128 bytes, and its header.
const TABLE: usize = 33 * SECTOR;
const DISK: usize = 1 << 20;

/// A path, the end of a line, and a file system.
pub fn erofs_read(bytes: &[u8]) {
    let (path, image) = halves(bytes, b"\n");
    let read = |at: u64, buffer: &mut [u8]| -> io::Result<()> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let part = start.checked_add(buffer.len()).and_then(|end| image.get(start..end));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    let _ = read_file(&read, &String::from_utf8_lossy(path));
}

/// The last bytes of a slot.
pub fn slot_record(bytes: &[u8]) {
    let Ok(record) = SlotRecord::decode(bytes) else { return };
    let again = record.encode().map(|bytes| SlotRecord::decode(&bytes));
    // What another program wrote may be longer than our own form of it has room for.
    assert!(again.is_err() || again == Ok(Ok(record)));
}

/// The start of a disk, as much as a table has, and its end. Checksums are put right, so that what is behind them is
/// seen too.
pub fn partition_table(bytes: &[u8]) {
    let (start, end) = bytes.split_at(bytes.len().min(SECTOR + TABLE));
    let mut disk = vec![0; DISK];
    disk[..start.len()].copy_from_slice(start);
    let count = end.len().min(TABLE);
    disk[DISK - TABLE..][..count].copy_from_slice(&end[..count]);
    look(disk.clone());
    seal(&mut disk, SECTOR, 2 * SECTOR);
    seal(&mut disk, DISK - SECTOR, DISK - TABLE);
    look(disk);
}

fn look(bytes: Vec<u8>) {
    let device: std::sync::Arc<dyn BlockDevice> = Memory::of(bytes);
    let Ok(disk) = Disk::on(&device, Path::new("memory")) else { return };
    for slot in ["a", "b", "recovery"] {
        let _ = disk.slot(slot).map(|slot| slot.read_record());
    }
}

/// Writes the checksums of a table of 128 entries and of its header.
fn seal(disk: &mut [u8], header: usize, table: usize) {
    let sum = crc32(&disk[table..table + TABLE - SECTOR]);
    disk[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
    disk[header + 16..header + 20].fill(0);
    let sum = crc32(&disk[header..header + 92]);
    disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// GRUB's two files for BIOS, or the sectors in which they lie: `boot.img`, and behind it `core.img`.
pub fn bios_boot(bytes: &[u8]) {
    const AT: u64 = 128;
    let (boot, core) = bytes.split_at(bytes.len().min(SECTOR));
    let mut found = [[0; SECTOR]; 2];
    for (sector, part) in found.iter_mut().zip(bytes.chunks(SECTOR)) {
        sector[..part.len()].copy_from_slice(part);
    }
    let [disk, first] = found;
    let _ = bios_boot::state(&disk, &first, AT);
    let Ok(grub) = BiosBoot::parse(boot, core) else { return };
    let sectors = core.len().div_ceil(SECTOR) as u64;
    assert!(grub.core(AT, sectors - 1).is_err(), "it has no room there");
    let core = grub.core(AT, sectors).expect("it has room there");
    let sector = grub.boot_sector(&first, AT);
    assert_eq!(sector[DISKS_OWN..], first[DISKS_OWN..]);
    let written = core.first_chunk().expect("at least a sector");
    assert_eq!(bios_boot::state(&sector, written, AT), BiosState::Whole);
}

/// Names and texts of boot entries, by line: a name, and what is in its file up to an empty line.
pub fn boot_entry(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut entries = Vec::new();
    for part in text.split("\n\n") {
        let (name, body) = part.split_once('\n').unwrap_or((part, ""));
        if let Some(name) = EntryName::parse(name) {
            assert_eq!(EntryName::parse(&name.encode()), Some(name.clone()));
            let Some(body) = EntryBody::parse(body) else { continue };
            let again = EntryBody::parse(&body.encode()).expect("what we write can be read");
            assert_eq!(
                (&again.slot, &again.digest, again.generation),
                (&body.slot, &body.digest, body.generation)
            );
            entries.push(BootEntry { name, body });
        }
    }
    let _ = (next_boot(&entries), next_generation(&entries));
}

/// GRUB's environment block as it lies on the disk; and one that has these bytes as its lines.
pub fn grub_env(bytes: &[u8]) {
    let mut block = [b"# GRUB Environment Block\n", bytes].concat();
    block.resize(LENGTH, b'#');
    for block in [bytes, &block] {
        let Ok(mut env) = GrubEnv::decode(block) else { continue };
        env.set("evenkeel_tries", "3");
        // There may be too much in it for ours.
        let Ok(written) = env.encode() else { continue };
        let again = GrubEnv::decode(&written).expect("what we write can be read");
        assert_eq!(again.get("evenkeel_tries"), Some("3"));
        for name in ["saved_entry", "evenkeel_trial", "evenkeel_loader", "next_entry", "a"] {
            assert_eq!(again.get(name), env.get(name), "{name}");
        }
        assert_eq!(again.encode().as_ref(), Ok(&written), "a second time changes nothing");
    }
}

/// A section of the content index as it lies on the disk; and one whose entries these bytes are, with count and blocks
/// before them, whose checksums hold.
pub fn content_index(bytes: &[u8]) {
    let footer = &bytes[bytes.len() - bytes.len().min(FOOTER)..];
    let _ = section_length(footer);
    let _ = section_list::parse(bytes);
    replay(bytes.to_vec());
    let Some((numbers, entries)) = bytes.split_first_chunk::<8>() else { return };
    let header =
        [&b"EKLAYER1"[..], &[1; 64], &1_u32.to_le_bytes(), &numbers[4..], &[2; 32], &numbers[..4]].concat();
    let mut section = [&header, entries].concat();
    let end = section.len();
    let Ok(end_word) = u32::try_from(end) else { return };
    section.resize((end + FOOTER).next_multiple_of(4096), 0);
    let length = u32::try_from(section.len()).expect("little more than its end");
    let sum = Sha256::digest(&section[..end]);
    let at = section.len() - FOOTER;
    let footer = [&b"EKLAYEND"[..], &length.to_le_bytes(), &end_word.to_le_bytes(), &sum].concat();
    section[at..at + footer.len()].copy_from_slice(&footer);
    replay(section);
}

/// What a section says is put into a tree, as staging does.
fn replay(bytes: Vec<u8>) {
    let Ok(section) = Section::parse(bytes) else { return };
    let (mut tree, mut entries) = (Tree::default(), section.entries(1));
    tree.begin_layer();
    while let Ok(Some((path, change))) = entries.next_entry() {
        let put = match change {
            Change::HardLink(target) => tree.hard_link(path, &target),
            Change::Put(kind, attributes) => tree.put(path, kind, attributes),
        };
        if put.is_err() {
            return;
        }
    }
}
