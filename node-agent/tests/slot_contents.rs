//! A slot against three judges: `umoci unpack` of the same layers entry by entry through the kernel's EROFS,
//! `fsck.erofs`, and `veritysetup`. Needs root, for the mount.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_node_agent::{
    disk::SlotRegion,
    slot::{Filesystem, SlotWriter, apply},
};
use evenkeel_node_agent_core::{digest::hex, slot_record::RECORD_LENGTH, tree::Tree};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const SLOT_OFFSET: u64 = 1 << 20;
const SLOT_LENGTH: u64 = 64 << 20;

/// One layer under construction.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(70_000);
        header.set_gid(12);
        header.set_mtime(1_700_000_000 + path.len() as u64);
        header.set_size(data.len() as u64);
        self.0.append_data(&mut header, path, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, 0o644, data)
    }

    fn dir(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, b"")
    }

    fn link(mut self, path: &str, kind: EntryType, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_650_000_000);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn device(mut self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_650_000_001);
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.0.append_data(&mut header, path, &b""[..]).unwrap();
        self
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

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

fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A mounted slot; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn of(disk: &Disk) -> Self {
        let at = disk.folder.path().join("mounted");
        fs::create_dir(&at).unwrap();
        let options = format!("ro,loop,offset={SLOT_OFFSET},sizelimit={}", disk.region.length);
        run(
            "mount",
            &["-t", "erofs", "-o", &options, disk.region.path.to_str().unwrap(), at.to_str().unwrap()],
        );
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Unpacks the same layers with umoci, from an OCI layout made by hand.
fn umoci(folder: &Path, layers: &[Vec<u8>], diff_ids: &[String]) -> PathBuf {
    let layout = folder.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = hex(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).unwrap();
        serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids }
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let plain = !layer.starts_with(&[0x1f, 0x8b]);
            let suffix = if plain { "tar" } else { "tar+gzip" };
            blob(&format!("application/vnd.oci.image.layer.v1.{suffix}"), layer)
        })
        .collect();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers
    });
    let mut manifest = blob(manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "t" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let bundle = folder.join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:t", layout.display()), bundle.to_str().unwrap()]);
    bundle.join("rootfs")
}

/// Everything about every entry below `root`, by path; hard links as the first path of their group.
fn entries(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut groups: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_file() {
            hex(&Sha256::digest(fs::read(&path).unwrap()))
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {}", meta.rdev())
        } else {
            String::new()
        };
        let group = if kind.is_dir() {
            name.clone()
        } else {
            groups.entry(meta.ino()).or_insert(name.clone()).clone()
        };
        let size = if kind.is_file() { meta.len() } else { 0 };
        let links = if kind.is_dir() { 0 } else { meta.nlink() };
        // umoci gives parents the time at which it touched them.
        let time = if kind.is_dir() { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
        let xattrs = run(
            "getfattr",
            &["-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", path.to_str().unwrap()],
        );
        let mut xattrs: Vec<&str> = xattrs.lines().filter(|line| line.contains('=')).collect();
        xattrs.sort_unstable();
        let all = format!(
            "{:o} {}:{} {time:?} {size} links {links} of {} {content} {xattrs:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            group.display()
        );
        found.insert(name, all);
    }
    found
}

fn corpus() -> Vec<Vec<u8>> {
    let long = "n".repeat(255);
    let big: Vec<u8> =
        (0..3_000_001_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut base = Layer::new()
        .dir("etc")
        .file("etc/old", b"hidden later")
        .file("etc/empty", b"")
        .file("etc/exactly-one-block", &[9; 4096])
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/libc.so", &big)
        .link("lib", EntryType::Symlink, "usr/lib")
        .dir("opaque")
        .dir("opaque/deep")
        .file("opaque/deep/lower", b"1")
        .file("opaque/lower", b"1")
        .file("becomes-directory", b"1")
        .dir("becomes-file")
        .file("becomes-file/child", b"1")
        .file("linked", b"one inode")
        .link("linked-too", EntryType::Link, "linked")
        .file(&long, b"long name")
        .link("long-link", EntryType::Symlink, &format!("/{}", "t/".repeat(400)))
        .pax(&[("SCHILY.xattr.user.note", b"a\nb\0c"), ("mtime", b"1700000000.123456789")])
        .file("noted", b"x")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .file("capable", b"x")
        .entry("setuid", EntryType::Regular, 0o4755, b"x")
        .device("null", EntryType::Char, 1, 3)
        .device("disk", EntryType::Block, 259, 300)
        .device("pipe", EntryType::Fifo, 0, 0)
        .dir("many");
    for number in 0..1500 {
        base = base.file(&format!("many/entry-{number:05}"), format!("{number}").as_bytes());
    }
    let middle = Layer::new()
        .file("etc/.wh.old", b"")
        .file("lib/added.so", b"through a link")
        .dir("becomes-directory")
        .file("becomes-directory/child", b"2")
        .file("becomes-file", b"2")
        .link("linked-later", EntryType::Link, "linked")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/upper", b"2");
    let top =
        Layer::new().file("linked", b"another inode").file("etc/new", b"3").file("many/.wh.entry-00700", b"");
    vec![gzip(&base.done()), middle.done(), gzip(&top.done())]
}

#[test]
fn a_slot_holds_what_umoci_unpacks() {
    let disk = Disk::new(SLOT_LENGTH);
    let layers = corpus();
    disk.write(&layers);
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| {
            let mut tree = Tree::default();
            let scratch = Disk::new(SLOT_LENGTH);
            let mut writer = SlotWriter::begin(&scratch.region).unwrap();
            let mut below = Vec::new();
            if !std::ptr::eq(layer, &raw const layers[0]) {
                below.push(layers[0].as_slice());
            }
            below.push(layer.as_slice());
            below.into_iter().map(|layer| apply(layer, &mut tree, &mut writer).unwrap()).last().unwrap()
        })
        .collect();
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
fn fsck_and_veritysetup_find_nothing() {
    let disk = Disk::new(SLOT_LENGTH);
    let written = disk.write(&corpus());
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
    let layers = corpus();
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
    let refused = apply(corpus()[0].as_slice(), &mut tree, &mut writer).unwrap_err();
    assert!(refused.to_string().contains("does not fit into slot b"), "{refused}");
    let bytes = fs::read(&disk.region.path).unwrap();
    assert!(bytes[bytes.len() - 8192..].iter().all(|byte| *byte == 0xAA));
    let record = &bytes[bytes.len() - 8192 - usize::try_from(RECORD_LENGTH).unwrap()..bytes.len() - 8192];
    assert!(record.iter().all(|byte| *byte == 0));
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
    let whole = corpus().remove(0);
    assert!(attempt(&whole[..whole.len() / 2]).contains("ended early or cannot be read"));
    let escape = Layer::new().pax(&[("path", b"a/../../etc/shadow")]).file("x", b"x").done();
    assert_eq!(attempt(&escape), "entry a/../../etc/shadow: its path leaves the image's root");
    let dangling = Layer::new().link("hard", EntryType::Link, "nowhere").done();
    assert!(attempt(&dangling).starts_with("entry hard: it is a hard link to something that is not there"));
}
