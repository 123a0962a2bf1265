//! The hashes of many blocks. One SHA-256 is a chain in which each step waits for the one before: a core that has
//! instructions for it is half idle then. Blocks do not wait for each other, so that four chains are gone along at a
//! time where the processor can do that; everywhere else it is one after the other, by the library.

use evenkeel_node_agent_core::erofs::BLOCK;
use sha2::{Digest as _, Sha256};

use super::DIGEST;
#[cfg(target_arch = "x86_64")]
use super::lanes;

/// The hash of one block.
pub(in crate::slot) fn leaf(block: &[u8]) -> [u8; DIGEST] {
    Sha256::digest(block).into()
}

/// The hashes of whole blocks, one behind the other.
pub(in crate::slot) fn leaves(bytes: &[u8], mut put: impl FnMut(&[u8; DIGEST])) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    debug_assert!(rest.is_empty(), "only whole blocks have a leaf");
    let rest = four_at_a_time(blocks, &mut put);
    for block in rest {
        put(&leaf(block));
    }
}

/// Hashes as many as it can; the others are left.
#[cfg(target_arch = "x86_64")]
fn four_at_a_time<'a>(blocks: &'a [[u8; BLOCK]], put: &mut impl FnMut(&[u8; DIGEST])) -> &'a [[u8; BLOCK]] {
    let (fours, rest) = blocks.as_chunks();
    for four in fours {
        let Some(digests) = lanes::digests(four) else { return blocks };
        digests.iter().for_each(&mut *put);
    }
    rest
}

#[cfg(not(target_arch = "x86_64"))]
fn four_at_a_time<'a>(blocks: &'a [[u8; BLOCK]], _: &mut impl FnMut(&[u8; DIGEST])) -> &'a [[u8; BLOCK]] {
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> Vec<[u8; DIGEST]> {
        let mut all = Vec::new();
        leaves(bytes, |leaf| all.push(*leaf));
        all
    }

    #[test]
    fn known_blocks_have_their_known_hashes() {
        // `head -c 4096 /dev/zero | sha256sum`
        let zeros = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7";
        let hex = |leaf: &[u8; DIGEST]| evenkeel_node_agent_core::digest::hex(leaf);
        let found: Vec<String> = of(&vec![0; 7 * BLOCK]).iter().map(hex).collect();
        assert_eq!(found, vec![zeros.to_owned(); 7]);
        assert!(of(&[]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_leaf_is_what_the_library_says(blocks in 0_usize..14, seed: [u8; 32], every in 1_usize..200) {
            // Other bytes in each block, and none that repeat within one.
            let mut bytes = vec![0; blocks * BLOCK];
            for (at, chunk) in bytes.chunks_mut(32).enumerate() {
                let hash = Sha256::new().chain_update(seed).chain_update((at / every).to_le_bytes()).finalize();
                chunk.copy_from_slice(&hash);
            }
            let expected: Vec<[u8; DIGEST]> = bytes.chunks(BLOCK).map(leaf).collect();
            prop_assert_eq!(of(&bytes), expected);
        }
    }
}
