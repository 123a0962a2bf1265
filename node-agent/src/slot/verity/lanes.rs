//! SHA-256 (FIPS 180-4) of four blocks at a time, by the instructions that x86-64 processors have for it. `SHA256RNDS2` gives
//! its result only after several cycles, and takes new work in each second one: four chains in turn keep it busy.
//!
//! The layout of a state is that of these instructions: its words A, B, E, F in one register and C, D, G, H in another, the
//! first of each highest (Intel's Software Developer's Manual, `SHA256RNDS2`).

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use evenkeel_node_agent_core::erofs::BLOCK;

use super::DIGEST;

/// Chains at a time. With two it is a quarter faster than one by the library, with four twice as fast; more do not fit into
/// the registers.
pub(super) const LANES: usize = 4;
/// Bytes that one round of the compression takes.
const CHUNK: usize = 64;
/// Four words of the message, and so four steps, at a time.
const STEPS: usize = 16;

/// The initial state (FIPS 180-4, 5.3.3) in the order of these registers: A, B, E, F and C, D, G, H.
const START: [[u32; 4]; 2] = [
    [0x6a09_e667, 0xbb67_ae85, 0x510e_527f, 0x9b05_688c],
    [0x3c6e_f372, 0xa54f_f53a, 0x1f83_d9ab, 0x5be0_cd19],
];

/// The constants of the 64 steps (FIPS 180-4, 4.2.2), four by four.
#[rustfmt::skip]
const CONSTANTS: [[u32; 4]; STEPS] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// What comes behind the bytes of a block: a bit, zeros, and the length in bits (FIPS 180-4, 5.1.1).
const PADDING: [u8; CHUNK] = {
    let mut padding = [0; CHUNK];
    padding[0] = 0x80;
    let bits = (BLOCK as u64 * 8).to_be_bytes();
    let mut at = 0;
    while at < bits.len() {
        padding[CHUNK - bits.len() + at] = bits[at];
        at += 1;
    }
    padding
};

/// The words A, B, E, F and C, D, G, H.
type State = [__m128i; 2];

/// The hash of each block; `None` where the processor lacks an instruction for it.
pub(super) fn digests(blocks: &[[u8; BLOCK]; LANES]) -> Option<[[u8; DIGEST]; LANES]> {
    let can = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3");
    // SAFETY: the processor was asked for every feature that the function names.
    can.then(|| unsafe { digests_here(blocks) })
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn digests_here(blocks: &[[u8; BLOCK]; LANES]) -> [[u8; DIGEST]; LANES] {
    let [abef, cdgh] = START.map(|[w3, w2, w1, w0]| {
        _mm_set_epi32(w3.cast_signed(), w2.cast_signed(), w1.cast_signed(), w0.cast_signed())
    });
    let mut states = [[abef, cdgh]; LANES];
    let chunks = blocks.each_ref().map(|block| block.as_chunks::<CHUNK>().0);
    for at in 0..BLOCK / CHUNK {
        compress(&mut states, chunks.map(|chunks| &chunks[at]));
    }
    compress(&mut states, [&PADDING; LANES]);
    states.map(|state| bytes(state))
}

/// Takes in the next 64 bytes of each message.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress(states: &mut [State; LANES], chunks: [&[u8; CHUNK]; LANES]) {
    let before = *states;
    let mut words = chunks.map(|chunk| message(chunk));
    for step in 0..STEPS {
        let [k0, k1, k2, k3] = CONSTANTS[step].map(u32::cast_signed);
        let constants = _mm_set_epi32(k3, k2, k1, k0);
        for (state, words) in states.iter_mut().zip(&mut words) {
            if step >= words.len() {
                words[step % 4] = next_words(words, step);
            }
            let sums = _mm_add_epi32(words[step % 4], constants);
            let [abef, cdgh] = state;
            *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sums);
            // The upper two of the four sums.
            *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0b00_00_11_10>(sums));
        }
    }
    for (state, before) in states.iter_mut().zip(before) {
        for (now, before) in state.iter_mut().zip(before) {
            *now = _mm_add_epi32(*now, before);
        }
    }
}

/// The sixteen words of a message, whose bytes are most significant first.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn message(chunk: &[u8; CHUNK]) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (halves, _) = chunk.as_chunks::<8>();
    let half = |at: usize| i64::from_le_bytes(halves[at]);
    [0, 2, 4, 6].map(|at| _mm_shuffle_epi8(_mm_set_epi64x(half(at + 1), half(at)), swap))
}

/// The next four words of the schedule (FIPS 180-4, 6.2.2, step 1), out of the sixteen before.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn next_words(words: &[__m128i; 4], step: usize) -> __m128i {
    let [oldest, second, third, newest] = [0, 1, 2, 3].map(|at| words[(step + at) % 4]);
    let sums = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, second), _mm_alignr_epi8::<4>(newest, third));
    _mm_sha256msg2_epu32(sums, newest)
}

/// A state as the digest's bytes, most significant first.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn bytes([abef, cdgh]: State) -> [u8; DIGEST] {
    let words = [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ];
    let mut digest = [0; DIGEST];
    for (place, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    digest
}
