//! Ed25519ph of RFC 8032, section 5.1: Ed25519 over the SHA-512 of a message. `cosign` 3 makes it with Ed25519 keys.
//! The safe interface of the cryptographic library does not have it.

/// Bytes of a public key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Whether `signature` is one by `key` on `message`, with the empty context.
pub(crate) fn verify(key: &[u8; KEY_BYTES], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    // SAFETY: the key and the signature have the lengths that the function reads, the message has its own, and of the
    // empty context nothing is read. Nothing is written, and no pointer is kept.
    let answer = unsafe {
        aws_lc_sys::ED25519ph_verify(
            message.as_ptr(),
            message.len(),
            signature.as_ptr(),
            key.as_ptr(),
            [].as_ptr(),
            0,
        )
    };
    answer == 1
}
