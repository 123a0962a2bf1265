//! Layers with a chunk table, made by hand, so that each part of them can be wrong.

use std::{collections::BTreeMap, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::image::{Blob, digest};

pub const TABLE: &str = "io.github.containers.zstd-chunked.manifest-position";
pub const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
pub const TAR_SPLIT: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// Bytes of a chunk.
const CHUNK: usize = 50_000;

/// A layer that can still be changed.
#[derive(Clone, Debug)]
pub struct Chunked {
    /// The frames of its data.
    pub data: Vec<u8>,
    /// The entries of its table.
    pub entries: Vec<Value>,
    pub tar_split: Vec<Value>,
}

impl Chunked {
    pub fn of(tar: &[u8]) -> Self {
        let mut made = Self { data: Vec::new(), entries: Vec::new(), tar_split: Vec::new() };
        let mut done = 0;
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let begin = usize::try_from(entry.raw_file_position()).unwrap();
            made.segment(&tar[done..begin]);
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            let name = entry.path().unwrap().display().to_string();
            made.file(&name, &data);
            done = begin + data.len();
        }
        made.segment(&tar[done..]);
        made
    }

    fn segment(&mut self, bytes: &[u8]) {
        self.frame(bytes);
        let position = self.tar_split.len();
        let record = json!({ "type": 2, "payload": STANDARD.encode(bytes), "position": position });
        self.tar_split.push(record);
    }

    fn file(&mut self, name: &str, data: &[u8]) {
        let position = self.tar_split.len();
        let mut record = json!({ "type": 1, "name": name, "payload": null, "position": position });
        let modified = "2023-11-14T22:13:20Z";
        let mut entry = json!({ "type": "reg", "name": name, "mode": 0o644, "modtime": modified });
        if !data.is_empty() {
            record["payload"] = json!("AAAAAAAAAAA=");
            record["size"] = json!(data.len());
            entry["size"] = json!(data.len());
            entry["digest"] = json!(digest(data));
            entry["offset"] = json!(self.data.len());
        }
        self.tar_split.push(record);
        let first = self.entries.len();
        self.entries.push(entry);
        for (number, chunk) in data.chunks(CHUNK).enumerate() {
            if number > 0 {
                let entry = json!({ "type": "chunk", "name": name, "chunkOffset": number * CHUNK });
                self.entries.push(entry);
            }
            let entry = self.entries.last_mut().unwrap();
            if data.len() > CHUNK {
                entry["offset"] = json!(self.data.len());
                entry["chunkSize"] = json!(chunk.len());
                entry["chunkDigest"] = json!(digest(chunk));
                if chunk.iter().all(|byte| *byte == 0) {
                    entry["chunkType"] = json!("zeros");
                }
            }
            self.frame(chunk);
        }
        if !data.is_empty() {
            self.entries[first]["endOffset"] = json!(self.data.len());
        }
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.data.extend(zstd::encode_all(bytes, 3).unwrap());
    }

    /// The table's entry of a file.
    pub fn entry(&mut self, name: &str) -> &mut Value {
        self.entries.iter_mut().find(|entry| entry["name"] == name).unwrap()
    }

    /// The table as it should be.
    pub fn table(&self) -> Value {
        json!({ "version": 1, "entries": self.entries, "tarSplitDigest": digest(&self.tar_split()) })
    }

    fn tar_split(&self) -> Vec<u8> {
        zstd::encode_all(self.lines().as_bytes(), 3).unwrap()
    }

    fn lines(&self) -> String {
        self.tar_split.iter().map(|record| record.to_string() + "\n").collect::<Vec<_>>().concat()
    }

    pub fn blob(&self) -> Blob {
        self.with_table(&self.table().to_string())
    }

    /// The layer with another text in the place of its table.
    pub fn with_table(&self, table: &str) -> Blob {
        let mut bytes = self.data.clone();
        let mut annotations = BTreeMap::new();
        let lines = self.lines().len();
        let compressed = zstd::encode_all(table.as_bytes(), 3).unwrap();
        annotations.insert(CHECKSUM.to_owned(), digest(&compressed));
        let kind = |inflated: usize, end: &str| format!("{inflated}{end}");
        for (name, frame, numbers) in
            [(TABLE, compressed, kind(table.len(), ":1")), (TAR_SPLIT, self.tar_split(), kind(lines, ""))]
        {
            bytes.extend([0x50, 0x2a, 0x4d, 0x18]);
            bytes.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
            annotations.insert(name.to_owned(), format!("{}:{}:{numbers}", bytes.len(), frame.len()));
            bytes.extend(frame);
        }
        let mut blob = Blob::new("application/vnd.oci.image.layer.v1.tar+zstd", bytes);
        blob.annotations = annotations;
        blob
    }
}
