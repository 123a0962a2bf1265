//! Documents that a hypervisor or a vendor has put into the machine's SMBIOS, as strings of structures of type 11 (DMTF
//! DSP0134 3.7, 7.12; the form of structures is 6.1).

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Before a document as it is.
const TEXT: &[u8] = b"evenkeel.cloud-config=";
/// Before one in base64: for what cannot be told in one line.
const BASE64: &[u8] = b"evenkeel.cloud-config.b64=";
const OEM_STRINGS: u8 = 11;
const END_OF_TABLE: u8 = 127;
/// Type, length, and a handle of two bytes.
const HEADER_BYTES: usize = 4;
/// Of type 11: how many strings there are.
const COUNT_AT: usize = 4;

/// Why a string's document is not used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SmbiosError {
    /// Not base64.
    #[error("it is not base64: {0}")]
    Base64(String),
    /// Not text.
    #[error("it is not UTF-8 text")]
    Text,
}

/// The documents in structures that follow each other, in their order. What is behind a damaged structure is not found.
pub fn documents(structures: &[u8]) -> Vec<Result<String, SmbiosError>> {
    oem_strings(structures).into_iter().filter_map(document).collect()
}

fn document(string: &[u8]) -> Option<Result<String, SmbiosError>> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| SmbiosError::Text);
    if let Some(bytes) = string.strip_prefix(TEXT) {
        return Some(text(bytes.to_vec()));
    }
    let coded: Vec<u8> =
        string.strip_prefix(BASE64)?.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    Some(STANDARD.decode(coded).map_err(|error| SmbiosError::Base64(error.to_string())).and_then(text))
}

fn oem_strings(mut structures: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((structure, after)) = next(structures) {
        structures = after;
        if structure.kind == OEM_STRINGS {
            let count = structure.fields.get(COUNT_AT).copied().unwrap_or_default();
            found.extend(structure.strings.into_iter().take(count.into()));
        }
    }
    found
}

struct Structure<'a> {
    kind: u8,
    /// Its fixed part, header included.
    fields: &'a [u8],
    strings: Vec<&'a [u8]>,
}

/// The first structure, and what is behind it.
fn next(bytes: &[u8]) -> Option<(Structure<'_>, &[u8])> {
    let (kind, length) = (*bytes.first()?, usize::from(*bytes.get(1)?));
    if kind == END_OF_TABLE || length < HEADER_BYTES {
        return None;
    }
    let (fields, rest) = bytes.split_at_checked(length)?;
    // Each string ends with a zero, and one more ends them all; without any there are two.
    let end = rest.windows(2).position(|pair| pair == [0, 0])?;
    let strings = if end == 0 { Vec::new() } else { rest[..end].split(|byte| *byte == 0).collect() };
    Some((Structure { kind, fields, strings }, &rest[end + 2..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a firmware makes it.
    fn structure(kind: u8, fields: &[u8], strings: &[&str]) -> Vec<u8> {
        let length = u8::try_from(HEADER_BYTES + fields.len()).unwrap();
        let mut bytes = vec![kind, length, 0, 3];
        bytes.extend(fields);
        for string in strings {
            bytes.extend([string.as_bytes(), &[0]].concat());
        }
        bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
        bytes
    }

    #[test]
    fn documents_are_found_among_other_strings_and_structures() {
        let ours = [
            "io.systemd.credential:x=y",
            "evenkeel.cloud-config=#cloud-config\nhostname: a\n",
            "evenkeel.cloud-config.b64=I2Nsb3VkLWNvbmZpZwo=",
            "evenkeel.cloud-config.b64=I2Nsb3Vk!",
            "evenkeel.cloud-config.b64=/w==",
            "xevenkeel.cloud-config=no",
        ];
        let table = [
            structure(1, &[1, 2, 3], &["evenkeel.cloud-config=of another type"]),
            structure(4, &[], &[]),
            structure(OEM_STRINGS, &[6], &ours),
            // One of them was said to be there.
            structure(OEM_STRINGS, &[1], &["evenkeel.cloud-config=second", "evenkeel.cloud-config=never"]),
            structure(END_OF_TABLE, &[], &[]),
            structure(OEM_STRINGS, &[1], &["evenkeel.cloud-config=behind the end"]),
        ];
        let found = documents(&table.concat());
        let texts: Vec<_> = found.iter().map(|document| document.as_deref().unwrap_or("?")).collect();
        assert_eq!(texts, ["#cloud-config\nhostname: a\n", "#cloud-config\n", "?", "?", "second"]);
        assert!(matches!(found[2], Err(SmbiosError::Base64(_))) && found[3] == Err(SmbiosError::Text));
    }

    #[test]
    fn what_is_cut_off_ends_the_search() {
        let whole = structure(OEM_STRINGS, &[1], &["evenkeel.cloud-config=one"]);
        let two = [whole.clone(), whole.clone()].concat();
        assert_eq!(documents(&two).len(), 2);
        for length in 0..whole.len() {
            assert_eq!(documents(&two[..whole.len() + length]).len(), 1, "{length}");
        }
        assert_eq!(documents(&structure(OEM_STRINGS, &[], &["evenkeel.cloud-config=one"])), []);
        assert_eq!(documents(&[OEM_STRINGS, 3, 0, 0, 0, 0]), []);
    }

    proptest! {
        #[test]
        fn hostile_bytes_come_to_an_end(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), head: bool) {
            if head && bytes.len() > 5 {
                bytes[..2].copy_from_slice(&[OEM_STRINGS, 5]);
            }
            documents(&bytes);
        }
    }
}
