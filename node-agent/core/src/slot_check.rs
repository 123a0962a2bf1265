//! What a look at a slot's every byte found: one document for all slots, beside the journal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The last look at each slot, by the slot's name.
pub type SlotChecks = BTreeMap<String, SlotCheck>;

/// A look at one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotCheck {
    /// Digest of the image that was in the slot.
    pub digest: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// The first byte of the slot that is not what was written; absent when all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_at: Option<u64>,
}

impl SlotCheck {
    /// Whether it speaks of what is in the slot now: of this image, written at this time.
    pub fn is_of(&self, digest: &str, written_at: Timestamp) -> bool {
        self.digest == digest && self.at >= written_at
    }
}
