//! Extended headers of a tar entry (POSIX.1-2001 pax): records `LENGTH KEY=VALUE\n`, where a value may hold any byte.

use std::collections::BTreeMap;

/// Bytes of all extended headers of one entry: room for the longest attribute that Linux has (64 KiB) many times over.
pub const HEADER_BYTES_MAX: u64 = 1 << 20;
const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What an extended header says of the entry behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// Full path.
    pub path: Option<Vec<u8>>,
    /// Target of a link.
    pub link: Option<Vec<u8>>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Modification time: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Bytes of the file.
    pub size: Option<u64>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why an extended header is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PaxError {
    /// The record's length does not fit the header.
    #[error("an extended header record is malformed")]
    Malformed,
    /// A number is none.
    #[error("the extended header's {0} is not a number that fits")]
    Number(String),
    /// The file has holes.
    #[error("sparse files are not supported: build the image's layer without --sparse")]
    Sparse,
}

impl Extended {
    /// Takes over what `header` says.
    pub fn read(&mut self, mut header: &[u8]) -> Result<(), PaxError> {
        while !header.is_empty() {
            let space = header.iter().position(|byte| *byte == b' ').ok_or(PaxError::Malformed)?;
            let length: usize = std::str::from_utf8(&header[..space])
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(PaxError::Malformed)?;
            if length <= space + 1 || length > header.len() || header[length - 1] != b'\n' {
                return Err(PaxError::Malformed);
            }
            let record = &header[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(PaxError::Malformed)?;
            self.take(&record[..equals], &record[equals + 1..])?;
            header = &header[length..];
        }
        Ok(())
    }

    /// An empty value takes back what an earlier header said; of an attribute it is the value.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        match key {
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"uid" => self.uid = number("uid", value, |text| text.parse().ok())?,
            b"gid" => self.gid = number("gid", value, |text| text.parse().ok())?,
            b"size" => self.size = number("size", value, |text| text.parse().ok())?,
            b"mtime" => self.mtime = number("mtime", value, time)?,
            _ if key.starts_with(SPARSE) => return Err(PaxError::Sparse),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

fn number<T>(key: &str, value: &[u8], parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, PaxError> {
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = std::str::from_utf8(value).ok().and_then(parse);
    parsed.map(Some).ok_or_else(|| PaxError::Number(key.to_owned()))
}

/// Seconds since 1970 with a decimal fraction, of which nine digits count.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_may_hold_line_ends() {
        let mut extended = Extended::default();
        extended.read(b"32 SCHILY.xattr.user.x=a\nb\n=\0 c\n").unwrap();
        assert_eq!(extended.xattrs[&b"user.x"[..]], b"a\nb\n=\0 c");
    }

    #[test]
    fn an_empty_value_takes_back_what_was_said() {
        let mut extended = Extended::default();
        extended.read(b"9 path=x\n9 uid=70\n9 size=1\n").unwrap();
        extended.read(b"8 path=\n7 uid=\n8 size=\n").unwrap();
        assert_eq!(extended, Extended::default());
    }

    #[test]
    fn an_attributes_name_may_be_no_utf8() {
        let mut extended = Extended::default();
        extended.read(b"24 SCHILY.xattr.user.\xff=\n").unwrap();
        assert_eq!(extended.xattrs[&b"user.\xff"[..]], b"");
    }

    #[test]
    fn times_before_1970_count_backwards() {
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("soon"), None);
        assert_eq!(time("1.+5"), None);
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Extended::default().read(&bytes);
        }
    }
}
