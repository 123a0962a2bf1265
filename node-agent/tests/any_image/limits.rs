//! What images have a lot of.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use evenkeel_node_agent_core::{
    erofs::{self, BLOCK},
    tree::{Attributes, Kind, Tree},
};

use crate::{
    kernel::{Mounted, fsck},
    matches_the_oracle,
    slot::Slot,
    stacks::{Form, Layer},
    tar_bytes::{Content, Dialect, Item, What, archive},
};

fn layer(items: Vec<Item>) -> Layer {
    Layer { items, end: 2, form: Form::Gzip }
}

fn file(path: &str, length: usize) -> Item {
    Item::new(path.as_bytes(), What::File(Content { length, seed: 3 }))
}

#[test]
fn a_directory_of_twenty_thousand() {
    let items = (0..20_000).map(|number: usize| {
        let name = format!("many/{number:05}-{}", "n".repeat(number % 240));
        file(&name, number % 3).in_dialect(Dialect::Gnu)
    });
    let top = vec![file("many/.wh.00000-", 0), file("many/10000-new", 9)];
    matches_the_oracle(&[layer(items.collect()), layer(top)]).unwrap();
}

#[test]
fn a_hundred_and_twenty_seven_layers_some_of_them_empty() {
    let layers = (0..127).map(|number: usize| {
        let mut items = vec![file("changing", number), file(&format!("d/{number}"), 1)];
        if number % 3 == 1 {
            items.push(file(&format!("d/.wh.{}", number - 1), 0));
        }
        layer(if number % 5 == 4 { Vec::new() } else { items })
    });
    matches_the_oracle(&layers.collect::<Vec<_>>()).unwrap();
}

#[test]
fn a_tree_as_deep_as_a_path_can_be() {
    matches_the_oracle(&[layer(vec![file(&("d/".repeat(300) + "leaf"), 5)])]).unwrap();
    // fsck.erofs has no stack for more. The place where it is mounted takes some of the path's bytes.
    let path = "d/".repeat(2000) + "leaf";
    let slot = Slot::new();
    slot.write(&[layer(vec![file(&path, 5)])]).unwrap();
    let seen = Mounted::new(slot.path(), &slot.folder().join("at")).entries();
    assert_eq!(seen.len(), 2002);
    assert!(seen.contains_key(path.as_bytes()));
}

/// Inodes, directory and layout of a file of 5 GiB, on a disk file with a hole in its place.
#[test]
fn a_file_beyond_4_gib_is_found_again_at_its_end() {
    const LENGTH: u64 = (5 << 30) + 1;
    let mut tree = Tree::default();
    let kind = Kind::File { block: 1, length: LENGTH };
    tree.put(b"large", kind, Attributes::default()).unwrap();
    let data_end = 1 + LENGTH.div_ceil(BLOCK as u64);
    let layout = erofs::Layout::new(&tree, u32::try_from(data_end).unwrap()).unwrap();
    let mut metadata = Vec::new();
    let mut sink = |block: &[u8]| {
        metadata.extend_from_slice(block);
        Ok::<(), erofs::ErofsError>(())
    };
    layout.encode(&tree, &mut sink).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot");
    let slot = File::create(&path).unwrap();
    slot.write_all_at(&layout.first_block([7; 16]), 0).unwrap();
    slot.write_all_at(b"!", BLOCK as u64 + LENGTH - 1).unwrap();
    slot.write_all_at(&metadata, data_end * BLOCK as u64).unwrap();
    let at = folder.path().join("at");
    let _mounted = Mounted::new(&path, &at);
    let large = File::open(at.join("large")).unwrap();
    assert_eq!(large.metadata().unwrap().size(), LENGTH);
    let mut end = [1; 2];
    large.read_exact_at(&mut end, LENGTH - 2).unwrap();
    assert_eq!(end, *b"\0!");
}

/// The same through a tar and the writer, byte for byte.
#[test]
#[ignore = "writes 4 GiB, and reads them three times"]
fn a_file_beyond_4_gib_comes_through_whole() {
    const LENGTH: u64 = (4 << 30) + 4097;
    let mut header = file("large", 0).in_dialect(Dialect::Gnu).encode();
    header.truncate(512);
    let digits = format!("{LENGTH:011o}\0");
    header[124..136].copy_from_slice(digits.as_bytes());
    let mut header = crate::tar_bytes::Header { bytes: header, dialect: Dialect::Gnu };
    header.bytes[148..156].fill(0);
    let padding = LENGTH.next_multiple_of(512) - LENGTH;
    let behind = archive(&[file("behind", 10)], 2);
    let tar = io::Cursor::new(header.done())
        .chain(io::repeat(b'x').take(LENGTH))
        .chain(io::repeat(0).take(padding))
        .chain(io::Cursor::new(behind));
    let slot = Slot::of(5 << 30);
    slot.write_streams([(tar, None)]).unwrap();
    fsck(slot.path());
    let at = slot.folder().join("at");
    let _mounted = Mounted::new(slot.path(), &at);
    let mut large = File::open(at.join("large")).unwrap();
    let (mut buffer, mut length) = (vec![0; 1 << 20], 0);
    loop {
        let count = large.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(buffer[..count].iter().all(|byte| *byte == b'x'));
        length += count as u64;
    }
    assert_eq!(length, LENGTH);
    assert_eq!(fs::read(at.join("behind")).unwrap().len(), 10);
}
