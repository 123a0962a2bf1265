//! Layers made by hand, with everything in them that an image may hold.

use std::io::Write as _;

use tar::{Builder, EntryType, Header};

/// One layer under construction.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
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

    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, 0o644, data)
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, b"")
    }

    pub fn link(mut self, path: &str, kind: EntryType, target: &str) -> Self {
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

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// As parallel gzip programs write it: members of 100 kB, which end anywhere in the tar.
pub fn gzip_members(data: &[u8]) -> Vec<u8> {
    data.chunks(100_000).flat_map(gzip).collect()
}

/// As zstd:chunked writes it: frames of 100 kB, with a frame to be skipped between.
pub fn zstd_frames(data: &[u8]) -> Vec<u8> {
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    let frames = data.chunks(100_000).map(|part| zstd::encode_all(part, 3).unwrap());
    frames.flat_map(|frame| [frame, skipped.clone()].concat()).collect()
}

/// The layers in one form each: gzip, plain, gzip.
pub fn compressed() -> Vec<Vec<u8>> {
    let [base, middle, top] = tars();
    vec![gzip(&base), middle, gzip(&top)]
}

/// Three layers, each with something for the ones below.
pub fn tars() -> [Vec<u8>; 3] {
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
    [base.done(), middle.done(), top.done()]
}
