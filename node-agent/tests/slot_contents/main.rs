//! A slot against three judges: `umoci unpack` of the same layers entry by entry through the kernel's EROFS,
//! `fsck.erofs`, and `veritysetup`. Needs root, for the mount.

mod judges;
mod layer;

use std::{fs, io::Write as _};

use evenkeel_node_agent::{
    disk::{RegionError, SlotRegion},
    slot::{Filesystem, SlotWriter, apply},
};
use evenkeel_node_agent_core::{digest::hex, slot_record::RecordError, tree::Tree};
use sha2::{Digest as _, Sha256};
use tar::EntryType;
use tempfile::TempDir;

use judges::{Mount, entries, run, umoci};
use layer::{Layer, compressed, gzip, gzip_members, tars, zstd_frames};

const SLOT_OFFSET: u64 = 1 << 20;
const SLOT_LENGTH: u64 = 64 << 20;

/// A disk file with one slot in it.
struct Disk {
    folder: TempDir,
    region: SlotRegion,
}

impl Disk {
    fn new(length: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::File::create(&path).unwrap().set_len(SLOT_OFFSET + length).unwrap();
        Self {
            folder,
            region: SlotRegion {
                name: "b".into(),
                path,
                device: None,
                offset: SLOT_OFFSET,
                length,
                disk_offset: SLOT_OFFSET,
                part_uuid: String::new(),
            },
        }
    }

    fn write(&self, layers: &[Vec<u8>]) -> Filesystem {
        let mut tree = Tree::default();
        let mut writer = SlotWriter::begin(&self.region).unwrap();
        for layer in layers {
            apply(layer.as_slice(), &mut tree, &mut writer).unwrap();
        }
        writer.finish(&tree, [7; 16]).unwrap()
    }

    fn filesystem(&self, written: &Filesystem) -> Vec<u8> {
        let disk = fs::read(&self.region.path).unwrap();
        let start = usize::try_from(SLOT_OFFSET).unwrap();
        disk[start..start + usize::try_from(written.length).unwrap()].to_vec()
    }
}

#[test]
fn a_slot_holds_what_umoci_unpacks() {
    let disk = Disk::new(SLOT_LENGTH);
    let layers = compressed();
    disk.write(&layers);
    let diff_ids = tars().map(|tar| format!("sha256:{}", hex(&Sha256::digest(tar))));
    let expected = entries(&umoci(disk.folder.path(), &layers, &diff_ids));
    let mount = Mount::of(&disk);
    let actual = entries(&mount.0);
    assert!(expected.len() > 1500, "umoci unpacked only {} entries", expected.len());
    for (path, entry) in &expected {
        assert_eq!(actual.get(path), Some(entry), "{}", path.display());
    }
    assert_eq!(actual.len(), expected.len());
}

#[test]
fn every_form_of_the_same_layers_gives_the_same_slot() {
    let expected = Disk::new(SLOT_LENGTH).write(&tars());
    let diff_ids = tars().map(|tar| format!("sha256:{}", hex(&Sha256::digest(tar))));
    for compress in [gzip, gzip_members, zstd_frames] {
        let disk = Disk::new(SLOT_LENGTH);
        let mut tree = Tree::default();
        let mut writer = SlotWriter::begin(&disk.region).unwrap();
        for (tar, diff_id) in tars().iter().zip(&diff_ids) {
            assert_eq!(apply(&compress(tar)[..], &mut tree, &mut writer).unwrap(), *diff_id);
        }
        assert_eq!(writer.finish(&tree, [7; 16]).unwrap(), expected);
    }
}

#[test]
fn fsck_and_veritysetup_find_nothing() {
    let disk = Disk::new(SLOT_LENGTH);
    let written = disk.write(&compressed());
    let image = disk.folder.path().join("image");
    fs::write(&image, disk.filesystem(&written)).unwrap();
    run("fsck.erofs", &[image.to_str().unwrap()]);

    let whole = disk.folder.path().join("slot");
    let bytes = fs::read(&disk.region.path).unwrap();
    fs::write(&whole, &bytes[usize::try_from(SLOT_OFFSET).unwrap()..]).unwrap();
    let whole = whole.to_str().unwrap();
    let (hash_offset, blocks) = (written.length.to_string(), (written.length / 4096).to_string());
    let verify =
        ["verify", "--no-superblock", "--salt=-", "--data-blocks", &blocks, "--hash-offset", &hash_offset];
    run("veritysetup", &[&verify[..], &[whole, whole, &written.root_hash]].concat());
}

#[test]
fn the_same_layers_give_the_same_bytes() {
    let (one, two) = (Disk::new(SLOT_LENGTH), Disk::new(SLOT_LENGTH));
    let layers = compressed();
    let (first, second) = (one.write(&layers), two.write(&layers));
    assert_eq!(first, second);
    assert!(one.filesystem(&first) == two.filesystem(&second));
}

#[test]
fn an_image_that_does_not_fit_is_refused_and_touches_nothing_behind_the_slot() {
    let disk = Disk::new(1 << 20);
    fs::OpenOptions::new().append(true).open(&disk.region.path).unwrap().write_all(&[0xAA; 8192]).unwrap();
    let mut tree = Tree::default();
    let mut writer = SlotWriter::begin(&disk.region).unwrap();
    let refused = apply(tars()[0].as_slice(), &mut tree, &mut writer).unwrap_err();
    assert!(refused.to_string().contains("does not fit into slot b"), "{refused}");
    let bytes = fs::read(&disk.region.path).unwrap();
    assert!(bytes[bytes.len() - 8192..].iter().all(|byte| *byte == 0xAA));
    let record = disk.region.read_record();
    assert!(matches!(record, Err(RegionError::Record { source: RecordError::Absent, .. })), "{record:?}");
}

#[test]
fn broken_layers_are_refused_by_name() {
    let disk = Disk::new(SLOT_LENGTH);
    let attempt = |layer: &[u8]| {
        let mut tree = Tree::default();
        let mut writer = SlotWriter::begin(&disk.region).unwrap();
        let error = apply(layer, &mut tree, &mut writer).unwrap_err();
        anyhow::Error::from(error).chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let whole = compressed().remove(0);
    assert!(attempt(&whole[..whole.len() / 2]).contains("ends early or cannot be read"));
    let escape = Layer::new().pax(&[("path", b"a/../../etc/shadow")]).file("x", b"x").done();
    assert_eq!(attempt(&escape), "entry a/../../etc/shadow: its path has `..` in it");
    let dangling = Layer::new().link("hard", EntryType::Link, "nowhere").done();
    assert!(attempt(&dangling).starts_with("entry hard: it is a hard link to something that is not there"));
}
