//! A disk in a file, and slots that are filled as the slot writer would, for whichever boot loader.

use std::{fs, path::Path, process::Command};

use evenkeel_node_agent::{
    disk::{Disk, Sizes, SlotRegion},
    install,
};
use evenkeel_node_agent_core::{
    digest::hex,
    slot_record::{BootFile, SlotRecord},
};
use sha2::{Digest as _, Sha256};

pub const SIZE: u64 = 1100 << 20;
pub const SIZES: Sizes = Sizes { disk: Some(SIZE), slot: Some(64 << 20), slots: 2 };

/// What a program said, both ways; it must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub struct Machine {
    pub folder: tempfile::TempDir,
    pub disk: Disk,
}

/// What an image brings to boot with.
pub struct Content<'a> {
    /// Path of the boot loader in the image, and its bytes.
    pub loader: (&'a str, &'a [u8]),
    pub kernel: &'a [u8],
    pub initrd: &'a [u8],
    pub kernel_options: &'a str,
}

impl Machine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = install::create_disk(&folder.path().join("disk.img"), SIZES).unwrap();
        Self { folder, disk }
    }

    /// An EROFS made by mkfs.erofs, and behind it kernel and initrd.
    pub fn fill_with(&self, name: &str, content: &Content<'_>) -> (SlotRegion, SlotRecord) {
        let slot = self.disk.slot(name).unwrap();
        let root = self.folder.path().join(format!("root-{name}"));
        let loader = root.join(content.loader.0);
        fs::create_dir_all(loader.parent().unwrap()).unwrap();
        fs::write(&loader, content.loader.1).unwrap();
        let image = self.folder.path().join(format!("{name}.erofs"));
        run("mkfs.erofs", &[path(&image), path(&root)]);
        let bytes = fs::read(&image).unwrap();
        let file = slot.open_rw().unwrap();
        file.write_at(0, &bytes).unwrap();
        let mut place = bytes.len() as u64;
        let mut boot_file = |path: &str, content: &[u8]| {
            file.write_at(place, content).unwrap();
            let length = content.len() as u64;
            let found = BootFile { path: path.into(), offset: place, length, sha256: sha256(content) };
            place += length;
            found
        };
        let record = SlotRecord {
            cloud_config: None,
            image: format!("registry.example/os:{name}"),
            digest: format!("sha256:{}", sha256(name.as_bytes())),
            manifest_digest: format!("sha256:{}", sha256(name.as_bytes())),
            version: "1.0".into(),
            labels: [].into(),
            layers: Vec::new(),
            root_hash: sha256(b""),
            filesystem_length: bytes.len() as u64,
            superblock_sha256: sha256(&bytes[..4096]),
            kernel: boot_file("/boot/vmlinuz", content.kernel),
            initrd: boot_file("/boot/initrd", content.initrd),
            kernel_options: content.kernel_options.into(),
            plan_id: None,
            written_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        file.write_at(slot.record_at(), &record.encode().unwrap()).unwrap();
        (slot, record)
    }
}
