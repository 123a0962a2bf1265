//! The thread that hashes: the leaves of the hash tree, the data of each layer, and what the read-back compares with.

use std::sync::mpsc::{Receiver, Sender};

use evenkeel_node_agent_core::{
    digest::{hex, unhex},
    erofs::BLOCK,
    section_list,
};
use sha2::{Digest as _, Sha256};

use super::{LayerEnd, Work, putter::Put, sums};
use crate::slot::{
    WriteError,
    verity::{DIGEST, leaves},
};

/// The hashes of everything that passed.
#[derive(Debug, Default)]
pub(in crate::slot) struct Hashes {
    /// The SHA-256 of each block, one behind the other. Block 0 comes last and has a place.
    pub leaves: Vec<u8>,
    /// The SHA-256 of each layer's section, lower-case hex; empty for a layer that has none.
    pub sections: Vec<String>,
}

/// Hashes until there is no more work. `room` are the bytes that there can be.
pub(super) fn work(room: u64, queue: &Receiver<Work>, next: &Sender<Put>) -> Result<Hashes, WriteError> {
    // Only what is used of it takes memory, and it never has to be moved.
    let length = usize::try_from(room / BLOCK as u64).unwrap_or(0) * DIGEST;
    let mut hashes = Hashes { leaves: Vec::with_capacity(length), sections: Vec::new() };
    hashes.leaves.extend([0; DIGEST]);
    let mut layer_at = hashes.leaves.len();
    while let Ok(work) = queue.recv() {
        let put = match work {
            Work::Blocks { at, buffer, there } => {
                leaves(&buffer, |leaf| hashes.leaves.extend_from_slice(leaf));
                let sums = if there { Vec::new() } else { sums(&buffer) };
                Put::Blocks { at, buffer, sums, there }
            }
            Work::LayerEnd(end) => {
                let data: [u8; DIGEST] = Sha256::digest(&hashes.leaves[layer_at..]).into();
                layer_at = hashes.leaves.len();
                let Some(put) = end_layer(end, data, &mut hashes.sections)? else { continue };
                put
            }
        };
        if next.send(put).is_err() {
            // The next thread knows why it ended.
            break;
        }
    }
    Ok(hashes)
}

fn end_layer(
    end: LayerEnd,
    data: [u8; DIGEST],
    sections: &mut Vec<String>,
) -> Result<Option<Put>, WriteError> {
    if end.expected.is_some_and(|expected| expected != data) {
        return Err(WriteError::Held { digest: end.digest });
    }
    Ok(match end.section {
        Ok((draft, at)) => {
            let bytes = draft.finish(data);
            sections.push(hex(&Sha256::digest(&bytes)));
            Some(Put::Section { at, bytes, list: list(sections) })
        }
        Err(there) => {
            sections.push(there);
            None
        }
    })
}

/// The list of these sections, and where it belongs.
pub(in crate::slot) fn list(sections: &[String]) -> (u64, Vec<u8>) {
    let named: Vec<_> = sections.iter().filter_map(|hex| unhex(&format!("sha256:{hex}"))).collect();
    section_list::encode(&named)
}
