//! Digests: only SHA-256, as every registry and builder has it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::RegistryError;

const PREFIX: &str = "sha256:";
const HEX_LENGTH: usize = 64;

/// `sha256:…` of bytes.
pub(crate) fn of(bytes: &[u8]) -> String {
    finish(Sha256::new_with_prefix(bytes))
}

/// `sha256:…` of what was hashed.
pub(crate) fn finish(hash: Sha256) -> String {
    hash.finalize().iter().fold(PREFIX.to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Whether `text` is a digest that can be checked.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|hex| {
        hex.len() == HEX_LENGTH && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Checks that `bytes` are what `expected` names.
pub(crate) fn check(what: &str, expected: &str, bytes: &[u8]) -> Result<(), RegistryError> {
    let actual = of(bytes);
    if actual == expected {
        return Ok(());
    }
    Err(RegistryError::DigestMismatch { what: what.to_owned(), expected: expected.to_owned(), actual })
}
