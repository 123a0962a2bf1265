//! What can keep bytes out of a slot.

use std::io::{self, ErrorKind};

use evenkeel_node_agent_core::{erofs::ErofsError, slot_record::RecordError};

/// Why a slot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk refused.
    #[error("{operation} slot {slot}: {}", advice(.source))]
    Disk {
        /// What was being done.
        operation: &'static str,
        /// The slot.
        slot: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The source of a file's data failed.
    #[error("the data of a file ended early or cannot be read")]
    Source(#[source] io::Error),
    /// The image does not fit.
    #[error(
        "the image does not fit into slot {slot} of {length} bytes: make the image smaller, or install with a larger --slot-size"
    )]
    TooLarge {
        /// The slot.
        slot: String,
        /// Its size in bytes.
        length: u64,
    },
    /// The tree cannot be an EROFS.
    #[error("the image's tree cannot be written")]
    Erofs(#[from] ErofsError),
    /// The record does not fit.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A layer that a slot was said to hold is not there as it was.
    #[error("layer {digest} is not what the content index of a slot says: fetch it")]
    Held {
        /// The layer.
        digest: String,
    },
    /// The disk gave back something else than was written.
    #[error("slot {slot} reads back differently at byte {at} of the slot: the disk is failing; replace it")]
    ReadBack {
        /// The slot.
        slot: String,
        /// The first byte of the block that differs.
        at: u64,
    },
}

/// What is to be done about an error of the disk. Only a file can be full, or a volume with less behind it than it has.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room in the file system or the pool that the disk is in"
        }
        _ => "look at the kernel's log for errors of the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_broken_one() {
        let told = |kind: ErrorKind| {
            WriteError::Disk { operation: "write", slot: "b".into(), source: kind.into() }.to_string()
        };
        assert!(told(ErrorKind::StorageFull).contains("make room"));
        assert!(told(ErrorKind::Other).contains("errors of the disk"));
    }
}
