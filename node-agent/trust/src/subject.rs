//! What a signature is on.

use std::{fmt, str::FromStr};

/// Hexadecimal digits of a SHA-256.
const HEX_DIGITS: usize = 64;

/// An image by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    repository: String,
    hex: String,
}

/// Not an image by its digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} does not name an image by its digest: REGISTRY/REPOSITORY@sha256:… is needed")]
pub struct SubjectError(String);

impl Subject {
    /// The repository, with its registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest's digits, without `sha256:`.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The digest, `sha256:…`.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    /// Takes `REGISTRY/REPOSITORY@sha256:…`, without a tag.
    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let parts = text.split_once("@sha256:").and_then(|(name, hex)| {
            let (registry, path) = name.split_once('/')?;
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let good = !registry.is_empty()
                && !path.is_empty()
                && !path.contains(':')
                && hex.len() == HEX_DIGITS
                && hex.bytes().all(is_digit);
            good.then(|| Self { repository: name.to_owned(), hex: hex.to_owned() })
        });
        parts.ok_or_else(|| SubjectError(text.to_owned()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@sha256:{}", self.repository, self.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_repository_with_a_digest_is_a_subject() {
        let hex = "0".repeat(64);
        let subject: Subject = format!("r.example:5000/team/os@sha256:{hex}").parse().unwrap();
        assert_eq!(
            (subject.repository(), subject.digest()),
            ("r.example:5000/team/os", format!("sha256:{hex}"))
        );
        for text in [
            "r.example/os:1".to_owned(),
            format!("r.example/os:1@sha256:{hex}"),
            format!("os@sha256:{hex}"),
            format!("r.example/@sha256:{hex}"),
            format!("r.example/os@sha256:{}", "A".repeat(64)),
            format!("r.example/os@sha256:{}", "0".repeat(63)),
            format!("r.example/os@sha256:{hex}@sha256:{hex}"),
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
