//! The header `Content-Range` (RFC 9110, section 14.4), for bytes.

use reqwest::header::{CONTENT_RANGE, HeaderMap};

/// Which part of the whole an answer is, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// First and last byte; absent where a range could not be given.
    pub part: Option<(u64, u64)>,
    /// Bytes of the whole; absent if they are not known.
    pub size: Option<u64>,
}

impl ContentRange {
    /// What the headers say; `None` if that is nothing, or cannot be true.
    pub(crate) fn find(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
        let (part, size) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
        let size = match size {
            "*" => None,
            size => Some(size.parse().ok()?),
        };
        if part == "*" {
            return Some(Self { part: None, size });
        }
        let (first, last) = part.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let possible = first <= last && size.is_none_or(|size| last < size);
        possible.then_some(Self { part: Some((first, last)), size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_nonsense() {
        let range = |part, size| Some(ContentRange { part, size });
        for (value, expected) in [
            ("bytes 0-9/10", range(Some((0, 9)), Some(10))),
            ("bytes 3-4/*", range(Some((3, 4)), None)),
            ("bytes */10", range(None, Some(10))),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("bytes 0-9", None),
            ("bytes -9/10", None),
            ("items 0-9/10", None),
            ("bytes 0-99999999999999999999/*", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, value.parse().unwrap())]);
            assert_eq!(ContentRange::find(&headers), expected, "{value}");
        }
        assert_eq!(ContentRange::find(&HeaderMap::new()), None);
    }
}
