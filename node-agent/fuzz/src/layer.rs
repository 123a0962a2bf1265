//! Layers: what was taken must come out of the file system again.

use evenkeel_node_agent::{
    disk::SlotRegion,
    slot::{SlotWriter, apply, pax::Extended},
};
use evenkeel_node_agent_core::{
    erofs_read,
    tree::{InodeId, Kind, ROOT, Tree},
};

use super::{halves, memory::Memory};

/// Large enough for some files, small enough for many runs in a second.
const SLOT: usize = 512 << 10;
/// Between two layers of one input.
const MARK: &[u8] = b"--layer--";
const LAYERS_MAX: usize = 4;

/// One extended header.
pub fn pax(bytes: &[u8]) {
    let _ = Extended::default().read(bytes);
}

/// Some layers, each a tar, compressed or not.
pub fn layer(bytes: &[u8]) {
    let slot = Memory::slot(SLOT);
    let mut tree = Tree::default();
    let mut writer = SlotWriter::begin(&slot).expect("memory takes everything");
    let mut rest = bytes;
    for _ in 0..LAYERS_MAX {
        let (layer, behind) = halves(rest, MARK);
        if apply(layer, &mut tree, &mut writer).is_err() {
            return;
        }
        rest = behind;
    }
    // It may be larger than the slot, or have an attribute that is too long with all others.
    if writer.finish(&tree, [7; 16]).is_ok() {
        compare(&tree, &slot, ROOT, "");
    }
}

/// Every file that has a name in UTF-8 reads back as the bytes that the tree says it has.
fn compare(tree: &Tree, slot: &SlotRegion, directory: InodeId, above: &str) {
    let window = slot.open_ro().expect("memory gives everything");
    let read = |at: u64, buffer: &mut [u8]| window.read_at(at, buffer);
    for (name, entry) in tree.entries(directory) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let path = format!("{above}/{name}");
        match &tree.inode(entry.inode).kind {
            Kind::Directory(_) => compare(tree, slot, entry.inode, &path),
            Kind::File { block, length } => {
                let found = erofs_read::read_file(&read, &path).expect("what was written can be read");
                let mut expected = vec![0; found.len()];
                assert_eq!(*length, expected.len() as u64, "{path}");
                window.read_at(u64::from(*block) * 4096, &mut expected).expect("it lies inside");
                assert!(found == expected, "{path}");
            }
            _ => assert!(erofs_read::read_file(&read, &path).is_err(), "{path}"),
        }
    }
}
