//! Public keys, and what they have signed.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
    },
};
use rustls_pki_types::{
    SubjectPublicKeyInfoDer, alg_id,
    pem::{PemObject as _, SectionKind},
};

use crate::ed25519ph;

/// Bytes of a key's text. RSA with 8192 bits takes 1062 bytes, in Base64 with its lines and frame about 1500.
const PEM_BYTES_MAX: usize = 4096;
/// `SubjectPublicKeyInfo` of an ECDSA key on P-256 with the point written out: 26 bytes of names, 65 of the point. Only
/// this form is taken, so that one key has one text and cannot be counted twice.
const P256_BYTES: usize = 26 + 65;
/// The same on P-384: 23 and 97.
const P384_BYTES: usize = 23 + 97;
/// `SubjectPublicKeyInfo` of an Ed25519 key: 12 bytes of names, then the key.
const ED25519_BYTES: usize = 12 + ed25519ph::KEY_BYTES;
/// Digits of a fingerprint that are shown.
const FINGERPRINT_SHOWN: usize = 12;

/// Why a text is not a key that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Larger than any key.
    #[error("it has more than {PEM_BYTES_MAX} bytes: give one public key as PEM")]
    TooLong,
    /// Not PEM, or PEM of something else.
    #[error(
        "it is not one public key: give what `cosign public-key` prints, from `-----BEGIN PUBLIC KEY-----` on"
    )]
    NotOneKey,
    /// A secret.
    #[error(
        "it is a private key, and whoever can read it here can sign: make a new pair, and give the public key of that"
    )]
    Private,
    /// A kind that is not supported.
    #[error("it is none of ECDSA on P-256 or P-384, Ed25519, RSA with 2048 to 8192 bits: use a key of those")]
    Kind,
    /// The right kind, with a value that is none.
    #[error("its value is not a key: export it again")]
    Value,
}

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    der: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl Kind {
    fn of(der: &[u8]) -> Option<Self> {
        let kinds = [
            (alg_id::ECDSA_P256, Self::P256),
            (alg_id::ECDSA_P384, Self::P384),
            (alg_id::ED25519, Self::Ed25519),
            (alg_id::RSA_ENCRYPTION, Self::Rsa),
        ];
        let named = algorithm(der)?;
        let kind = kinds.into_iter().find_map(|(name, kind)| (name.as_ref() == named).then_some(kind))?;
        let length = match kind {
            Self::P256 => P256_BYTES,
            Self::P384 => P384_BYTES,
            Self::Ed25519 => ED25519_BYTES,
            Self::Rsa => der.len(),
        };
        (der.len() == length).then_some(kind)
    }

    /// The signatures that such a key makes. `cosign` 2 hashed with SHA-256 for every curve, `cosign` 3 takes the
    /// curve's own. It makes RSA signatures with PKCS #1 v1.5; keys that a cloud's vault holds may make PSS.
    fn algorithms(self) -> &'static [&'static dyn VerificationAlgorithm] {
        match self {
            Self::P256 => &[&ECDSA_P256_SHA256_ASN1],
            Self::P384 => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
            Self::Ed25519 => &[&ED25519],
            Self::Rsa => &[&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256],
        }
    }
}

/// The content of the `AlgorithmIdentifier` in a `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
fn algorithm(der: &[u8]) -> Option<&[u8]> {
    /// `SEQUENCE`.
    const SEQUENCE: u8 = 0x30;
    let (&[SEQUENCE, length], rest) = der.split_first_chunk()? else { return None };
    // From 128 on the byte says how many bytes the length has.
    let long = usize::from(length.saturating_sub(0x80));
    let (&[SEQUENCE, length], rest) = rest.get(long..)?.split_first_chunk()? else { return None };
    rest.get(..usize::from(length))
}

impl PublicKey {
    /// Reads a key in PEM, as `cosign generate-key-pair` writes it: one `SubjectPublicKeyInfo`, and nothing else.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
        let (Some(Ok((kind, der))), None) = (sections.next(), sections.next()) else {
            return Err(KeyError::NotOneKey);
        };
        let key = SubjectPublicKeyInfoDer::from_pem(kind, der).ok_or(KeyError::NotOneKey)?;
        Self::from_der(&key)
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let kind = Kind::of(der).ok_or(KeyError::Kind)?;
        if kind == Kind::Rsa {
            // This reading refuses sizes that a check of a signature would refuse later, and for good.
            PublicEncryptingKey::from_der(der).map_err(|_| KeyError::Kind)?;
        }
        for algorithm in kind.algorithms() {
            ParsedPublicKey::new(*algorithm, der).map_err(|_| KeyError::Value)?;
        }
        Ok(Self { der: der.to_owned(), kind })
    }

    /// Whether this key signed `message`.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &&'static dyn VerificationAlgorithm| {
            let key = ParsedPublicKey::new(*algorithm, &self.der);
            key.is_ok_and(|key| key.verify_sig(message, signature).is_ok())
        };
        self.kind.algorithms().iter().any(by) || self.signed_prehashed(message, signature)
    }

    fn signed_prehashed(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Kind::Ed25519, Some(key), Ok(signature)) =
            (self.kind, self.der.last_chunk(), signature.try_into())
        else {
            return false;
        };
        ed25519ph::verify(key, message, signature)
    }

    /// SHA-256 of the key's DER, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest = digest(&SHA256, &self.der);
        digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.fingerprint())
    }
}

/// The beginning of the fingerprint.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint()[..FINGERPRINT_SHOWN])
    }
}
