//! The slot record: what is in a slot, kept in the slot's own last bytes.
//!
//! A slot is *complete* if and only if its record parses, its checksum holds and it names the superblock that is
//! there.
//!
//! Layout, at `slot length - RECORD_LENGTH`, all integers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `EKSLOT01` |
//! | 8 | 4 | length of the JSON document |
//! | 12 | 4 | zero |
//! | 16 | 32 | SHA-256 of the JSON document |
//! | 48 | n | the JSON document |

use std::collections::BTreeMap;

use evenkeel_crds::cloud_config::release;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::hex;

/// Bytes at the end of each slot that belong to the record: 64 KiB holds 127 layers and all labels of real images.
pub const RECORD_LENGTH: u64 = 64 << 10;
const MAGIC: &[u8; 8] = b"EKSLOT01";
const HEADER_LENGTH: usize = 48;

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotRecord {
    /// The reference as it was asked for.
    pub image: String,
    /// Digest of what the reference names: an index or a manifest.
    pub digest: String,
    /// Digest of the manifest of this machine's platform.
    pub manifest_digest: String,
    /// Version of the image: its `org.opencontainers.image.version` label, or `VERSION_ID` of its os-release.
    pub version: String,
    /// Labels of the image's configuration.
    pub labels: BTreeMap<String, String>,
    /// The layers, base first.
    pub layers: Vec<LayerRecord>,
    /// Root of the SHA-256 hash tree over the file system's 4096-byte blocks, lower-case hex.
    pub root_hash: String,
    /// Bytes of the file system, from the start of the slot; a multiple of 4096.
    pub filesystem_length: u64,
    /// SHA-256 of the first 4096 bytes of the slot, lower-case hex.
    pub superblock_sha256: String,
    /// The kernel that the image brings.
    pub kernel: BootFile,
    /// The initrd that the image brings.
    pub initrd: BootFile,
    /// Kernel options that the image asks for, as [`crate::kernel_options::of_image`] gives them.
    #[serde(default)]
    pub kernel_options: String,
    /// The cluster's cloud-config for the machine, a document that [`crate::cloud_config`] reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_config: Option<String>,
    /// The plan that the slot was written for; absent when a person wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// When the record was written.
    pub written_at: Timestamp,
}

/// One layer of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// Digest of the blob as the registry holds it.
    pub digest: String,
    /// Digest of the uncompressed tar stream.
    pub diff_id: String,
    /// SHA-256 of the layer's section of the [content index](crate::content_index), lower-case hex; empty when the slot
    /// has none.
    #[serde(default)]
    pub index_sha256: String,
}

/// A file of the image that the boot loader needs; its bytes lie in one piece in the slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootFile {
    /// Path in the image, absolute.
    pub path: String,
    /// Bytes from the start of the slot to the file's first byte.
    pub offset: u64,
    /// Bytes of the file.
    pub length: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
}

/// Why bytes are not the record of a complete slot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// The slot was never written, or its record was wiped before a new write.
    #[error("there is no slot record")]
    Absent,
    /// The record was damaged.
    #[error("the slot record is damaged: {0}")]
    Damaged(String),
    /// The record does not fit its place.
    #[error(
        "the slot record needs {needed} bytes and has {RECORD_LENGTH}: the image has too many layers or labels, or the \
         cloud-config is too long"
    )]
    TooLarge {
        /// Bytes that it needs.
        needed: usize,
    },
}

impl SlotRecord {
    /// What runs when this slot is booted, image and cloud-config, as plans name it.
    pub fn release(&self) -> String {
        let sha256 = self.cloud_config.as_ref().map(|document| hex(&Sha256::digest(document)));
        release(&self.digest, sha256.as_deref())
    }

    /// Encodes the record, padded with zeros to `RECORD_LENGTH`.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let body = serde_json::to_vec(self).map_err(|error| RecordError::Damaged(error.to_string()))?;
        let needed = HEADER_LENGTH + body.len();
        let length = u32::try_from(body.len()).map_err(|_| RecordError::TooLarge { needed })?;
        let mut bytes = vec![0; usize::try_from(RECORD_LENGTH).expect("64 KiB fits every usize")];
        if needed > bytes.len() {
            return Err(RecordError::TooLarge { needed });
        }
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[16..HEADER_LENGTH].copy_from_slice(&Sha256::digest(&body));
        bytes[HEADER_LENGTH..needed].copy_from_slice(&body);
        Ok(bytes)
    }

    /// Decodes the record from the slot's last `RECORD_LENGTH` bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err(RecordError::Absent);
        }
        let damaged = |what: &str| RecordError::Damaged(what.to_owned());
        let length = bytes.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let length = length.ok_or_else(|| damaged("it is cut off"))? as usize;
        let checksum = bytes.get(16..HEADER_LENGTH).ok_or_else(|| damaged("it is cut off"))?;
        let body = HEADER_LENGTH.checked_add(length).and_then(|end| bytes.get(HEADER_LENGTH..end));
        let body = body.ok_or_else(|| damaged("its length is beyond its place"))?;
        if Sha256::digest(body).as_slice() != checksum {
            return Err(damaged("its checksum does not hold"));
        }
        serde_json::from_slice(body).map_err(|error| RecordError::Damaged(error.to_string()))
    }
}
