//! What the kernel shows of a slot, and what `fsck.erofs` says of it.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::{self, Metadata},
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_node_agent_core::digest::hex;
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use sha2::{Digest as _, Sha256};

use crate::oracle::{Is, Seen};

/// A slot's file as the kernel mounts it: in a name space that ends with this thread, so that not even a test that is
/// killed leaves a mount behind.
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    pub fn new(slot: &Path, at: &Path) -> Self {
        // SAFETY: takes flags only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", io::Error::last_os_error());
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-t", "erofs", "-o", "ro,loop"]).args([slot, at]));
        Self { at: at.to_owned() }
    }

    /// Every path in it.
    pub fn entries(&self) -> BTreeMap<Vec<u8>, Seen> {
        let mut found = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        let mut open = vec![Vec::new()];
        while let Some(path) = open.pop() {
            let place = self.at.join(OsStr::from_bytes(&path));
            let metadata = fs::symlink_metadata(&place).unwrap();
            if metadata.is_dir() {
                for entry in fs::read_dir(&place).unwrap() {
                    let name = entry.unwrap().file_name();
                    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    open.push([&path, slash, name.as_bytes()].concat());
                }
            }
            numbers.insert(path.clone(), metadata.ino());
            found.insert(path, seen(&place, &metadata));
        }
        let mut first = BTreeMap::new();
        for (path, number) in &numbers {
            first.entry(*number).or_insert_with(|| path.clone());
        }
        for (path, seen) in &mut found {
            seen.same_as.clone_from(&first[&numbers[path]]);
        }
        found
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// Nothing to complain of.
pub fn fsck(slot: &Path) {
    run(Command::new("fsck.erofs").arg(slot));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

fn seen(place: &Path, metadata: &Metadata) -> Seen {
    let kind = metadata.file_type();
    let device = (u64::from(libc::major(metadata.rdev())), u64::from(libc::minor(metadata.rdev())));
    let is = if kind.is_dir() {
        Is::Directory
    } else if kind.is_file() {
        let (length, sha256) = hash(&mut fs::File::open(place).unwrap());
        assert_eq!(length, metadata.len(), "{}", place.display());
        Is::File { length, sha256 }
    } else if kind.is_symlink() {
        Is::Symlink(fs::read_link(place).unwrap().as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        Is::Char(device.0, device.1)
    } else if kind.is_block_device() {
        Is::Block(device.0, device.1)
    } else {
        assert!(kind.is_fifo(), "{}", place.display());
        Is::Fifo
    };
    Seen {
        is,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        time: (metadata.mtime(), metadata.mtime_nsec()),
        xattrs: xattrs(place),
        links: metadata.nlink(),
        same_as: Vec::new(),
    }
}

/// Bytes of a file, and their SHA-256.
fn hash(file: &mut fs::File) -> (u64, String) {
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).unwrap();
        if count == 0 {
            return (length, hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
        length += count as u64;
    }
}

fn xattrs(place: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = CString::new(place.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with a zero byte, and no more is written than the buffer holds.
    let names = filled(|at, length| unsafe { libc::llistxattr(path.as_ptr(), at.cast(), length) });
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let key = CString::new(name).unwrap();
            let value = filled(|at, length| {
                // SAFETY: as above.
                unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), at.cast(), length) }
            });
            (name.to_vec(), value)
        })
        .collect()
}

fn filled(call: impl Fn(*mut u8, usize) -> isize) -> Vec<u8> {
    let mut buffer = vec![0; 128 << 10];
    let length = call(buffer.as_mut_ptr(), buffer.len());
    let length = usize::try_from(length).unwrap_or_else(|_| panic!("{}", io::Error::last_os_error()));
    buffer.truncate(length);
    buffer
}
