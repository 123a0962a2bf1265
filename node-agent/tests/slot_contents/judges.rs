//! Who says what a slot should hold: the kernel's EROFS, and `umoci unpack`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_node_agent_core::digest::hex;
use sha2::{Digest as _, Sha256};

use crate::{Disk, SLOT_OFFSET};

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
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
pub struct Mount(pub PathBuf);

impl Mount {
    pub fn of(disk: &Disk) -> Self {
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
pub fn umoci(folder: &Path, layers: &[Vec<u8>], diff_ids: &[String]) -> PathBuf {
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
pub fn entries(root: &Path) -> BTreeMap<PathBuf, String> {
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
