//! An image of a wanted size, out of this machine's own files: what a root file system is made of.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::image::{Blob, INITRD, Image, KERNEL, digest, noise};

const SOURCES: [&str; 3] = ["/usr/lib", "/usr/bin", "/usr/share"];
const LAYERS: usize = 3;
const KERNEL_LENGTH: usize = 8 << 20;
const INITRD_LENGTH: usize = 30 << 20;
/// What builders use.
const LEVEL: u32 = 6;
/// Of a file that only makes their number larger.
const SMALL: usize = 1024;

/// An image and what is in it.
pub struct Tree {
    pub image: Image,
    pub bytes: u64,
    pub files: usize,
}

/// Makes the image; the machine's files come several times where they are not enough.
pub fn image(bytes: u64, files: usize) -> Tree {
    let sources = sources(bytes / 10, bytes / files as u64);
    let mut tree = Tree {
        image: Image { config: blob("", Vec::new()), layers: Vec::new(), manifest: blob("", Vec::new()) },
        bytes: 0,
        files: 0,
    };
    let mut diff_ids = Vec::new();
    let mut next = 0;
    for layer in 1..=LAYERS {
        let mut builder = Builder::new(Vec::new());
        if layer == LAYERS {
            put(&mut builder, &mut tree, KERNEL, &noise(KERNEL_LENGTH, 1));
            put(&mut builder, &mut tree, INITRD, &noise(INITRD_LENGTH, 2));
        }
        let share = |whole: u64| whole * layer as u64 / LAYERS as u64;
        while tree.bytes < share(bytes) {
            let (round, source) = (next / sources.len(), &sources[next % sources.len()]);
            next += 1;
            if let Ok(content) = fs::read(source) {
                put(&mut builder, &mut tree, &format!("{round}{}", source.display()), &content);
            }
        }
        while (tree.files as u64) < share(files as u64) {
            let name = format!("small/{}/{}", tree.files / 100, tree.files);
            put(&mut builder, &mut tree, &name, &name.as_bytes().repeat(SMALL / name.len()));
        }
        let tar = builder.into_inner().unwrap();
        diff_ids.push(digest(&tar));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
        gzip.write_all(&tar).unwrap();
        let layer = gzip.finish().unwrap();
        tree.image.layers.push(blob("application/vnd.oci.image.layer.v1.tar+gzip", layer));
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    tree.image.config = blob("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": tree.image.config.descriptor(),
        "layers": tree.image.layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
    });
    tree.image.manifest = blob(media_type, manifest.to_string().into_bytes());
    tree
}

fn blob(media_type: &str, bytes: Vec<u8>) -> Blob {
    Blob::new(media_type, bytes)
}

fn put(builder: &mut Builder<Vec<u8>>, tree: &mut Tree, path: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
    tree.bytes += content.len() as u64;
    tree.files += 1;
}

/// Files below `largest` bytes, of all kinds and folders in turn, without so many of the smallest that the rest has `mean` bytes each.
fn sources(largest: u64, mean: u64) -> Vec<PathBuf> {
    let mut files = all_files(largest);
    files.sort_by_cached_key(|(path, _)| digest(path.as_os_str().as_encoded_bytes()));
    let mut sizes: Vec<u64> = files.iter().map(|(_, size)| *size).collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    let (mut sum, mut least) = (0, u64::MAX);
    for (size, count) in sizes.into_iter().zip(1..) {
        sum += size;
        if sum / count < mean {
            break;
        }
        least = size;
    }
    files.into_iter().filter(|(_, size)| *size >= least).map(|(path, _)| path).collect()
}

fn all_files(largest: u64) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let mut below: Vec<PathBuf> = listing(&path);
            below.sort();
            open.append(&mut below);
        } else if meta.is_file() && meta.len() < largest {
            files.push((path, meta.len()));
        }
    }
    files
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
