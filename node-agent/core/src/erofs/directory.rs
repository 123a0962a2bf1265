//! Directory data: blocks of 12-byte entries followed by their names, sorted by name over the whole directory.

use std::collections::BTreeMap;

use super::BLOCK;
use crate::tree::{Entry, Kind, Tree};

const DIRENT: usize = 12;
const TYPE_DIRECTORY: u8 = 2;

/// Names with `.` and `..`, in order.
fn names(entries: &BTreeMap<Vec<u8>, Entry>) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = entries.keys().map(Vec::as_slice).chain([&b"."[..], &b".."[..]]).collect();
    names.sort_unstable();
    names
}

/// How many of the names go into each block, and the bytes used in the last.
fn split(names: &[&[u8]]) -> (Vec<usize>, usize) {
    let (mut counts, mut count, mut used) = (Vec::new(), 0, 0);
    for name in names {
        let needed = DIRENT + name.len();
        if used + needed > BLOCK {
            counts.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += needed;
    }
    counts.push(count);
    (counts, used)
}

/// Bytes of a directory's data.
pub fn length(entries: &BTreeMap<Vec<u8>, Entry>) -> usize {
    let (counts, used) = split(&names(entries));
    (counts.len() - 1) * BLOCK + used
}

/// A directory's data.
pub fn encode(
    tree: &Tree,
    entries: &BTreeMap<Vec<u8>, Entry>,
    own: u64,
    parent: u64,
    numbers: &[u64],
) -> Vec<u8> {
    let names = names(entries);
    let (counts, _) = split(&names);
    let mut data = Vec::with_capacity(length(entries));
    let mut rest = names.as_slice();
    for (index, count) in counts.iter().enumerate() {
        let (here, after) = rest.split_at(*count);
        rest = after;
        let mut name_at = count * DIRENT;
        for name in here {
            let (number, kind) = match entries.get(*name) {
                Some(entry) => (numbers[entry.inode], file_type(&tree.inode(entry.inode).kind)),
                None if *name == b"." => (own, TYPE_DIRECTORY),
                None => (parent, TYPE_DIRECTORY),
            };
            data.extend(number.to_le_bytes());
            data.extend(u16::try_from(name_at).expect("a place in a block of 4096 bytes").to_le_bytes());
            data.extend([kind, 0]);
            name_at += name.len();
        }
        data.extend(here.concat());
        if index + 1 < counts.len() {
            data.resize((index + 1) * BLOCK, 0);
        }
    }
    data
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => TYPE_DIRECTORY,
        Kind::CharDevice(..) => 3,
        Kind::BlockDevice(..) => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}
