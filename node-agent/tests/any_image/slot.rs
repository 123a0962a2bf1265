//! A slot in a file, written by the agent.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use evenkeel_node_agent::{
    disk::SlotRegion,
    slot::{Filesystem, SlotWriter, apply},
};
use evenkeel_node_agent_core::{digest::hex, tree::Tree};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    stacks::{Form, Layer},
    tar_bytes::archive,
};

const LENGTH: u64 = 64 << 20;
/// Bytes before and behind a guarded slot.
const GUARD: usize = 8192;

/// The slot; gone when dropped.
pub struct Slot {
    folder: TempDir,
    region: SlotRegion,
}

impl Slot {
    pub fn new() -> Self {
        Self::of(LENGTH)
    }

    pub fn of(length: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slot");
        File::create(&path).unwrap().set_len(length).unwrap();
        let region = SlotRegion {
            name: "b".into(),
            path,
            device: None,
            offset: 0,
            length,
            disk_offset: 0,
            part_uuid: String::new(),
        };
        Self { folder, region }
    }

    /// Between bytes that are not its own.
    pub fn guarded() -> Self {
        let mut slot = Self::of(LENGTH);
        slot.region.offset = GUARD as u64;
        let disk = OpenOptions::new().write(true).open(slot.path()).unwrap();
        disk.write_all_at(&[0xAA; GUARD], 0).unwrap();
        disk.write_all_at(&[0xAA; GUARD], GUARD as u64 + LENGTH).unwrap();
        slot
    }

    pub fn assert_nothing_outside_changed(&self) {
        let disk = File::open(self.path()).unwrap();
        let end = GUARD as u64 + LENGTH;
        assert_eq!(disk.metadata().unwrap().len(), end + GUARD as u64);
        for at in [0, end] {
            let mut bytes = [0; GUARD];
            disk.read_exact_at(&mut bytes, at).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0xAA), "something was written outside of the slot");
        }
    }

    /// Applies each of some layers to an empty tree; gives each diff ID, or error with its causes.
    pub fn apply_all<R: Read>(&self, layers: impl IntoIterator<Item = R>) -> Vec<Result<String, String>> {
        let mut writer = SlotWriter::begin(&self.region).unwrap();
        let apply = |layer| {
            let applied = apply(layer, &mut Tree::default(), &mut writer);
            applied.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
        };
        layers.into_iter().map(apply).collect()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self) -> &Path {
        &self.region.path
    }

    pub fn write(&self, layers: &[Layer]) -> Result<Filesystem> {
        let tars = layers.iter().map(|layer| archive(&layer.items, layer.end));
        let streams = tars.zip(layers).map(|(tar, layer)| {
            (compress(&tar, layer.form), format!("sha256:{}", hex(&Sha256::digest(&tar))))
        });
        self.write_streams(streams.map(|(bytes, diff_id)| (std::io::Cursor::new(bytes), Some(diff_id))))
    }

    /// Writes layers from their streams, and looks whether the diff IDs come out.
    pub fn write_streams<R: Read>(
        &self,
        layers: impl IntoIterator<Item = (R, Option<String>)>,
    ) -> Result<Filesystem> {
        let mut tree = Tree::default();
        let mut writer = SlotWriter::begin(&self.region)?;
        for (number, (layer, diff_id)) in layers.into_iter().enumerate() {
            let applied = apply(layer, &mut tree, &mut writer).with_context(|| format!("layer {number}"))?;
            if let Some(diff_id) = diff_id {
                assert_eq!(applied, diff_id);
            }
        }
        Ok(writer.finish(&tree, [7; 16])?)
    }
}

pub fn compress(tar: &[u8], form: Form) -> Vec<u8> {
    let gzip = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |part: &[u8]| zstd::encode_all(part, 1).unwrap();
    // Its number is any of sixteen.
    let skipped = |low: u8| [&[0x50 | low, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    match form {
        Form::Plain => tar.to_vec(),
        Form::Gzip => gzip(tar),
        // Ends of members and frames fall anywhere in the tar.
        Form::GzipMembers => [tar.chunks(70_001).flat_map(gzip).collect(), gzip(b"")].concat(),
        Form::Zstd => zstd(tar),
        Form::ZstdFrames => {
            let frames = tar.chunks(70_001).flat_map(|part| [zstd(part), skipped(5)].concat());
            [skipped(0), skipped(15)].concat().into_iter().chain(frames).collect()
        }
    }
}
