//! The tar-split: what a tar has beside the data of its files, so that it can be put together again byte by byte.
//!
//! The form is that of github.com/vbatts/tar-split (`tar/storage/entry.go`, `tar/storage/packer.go`): one JSON object
//! for each record, each on a line of its own.
//!
//! | field | meaning |
//! |---|---|
//! | `type` | 1: here the data of a file belongs; 2: these bytes |
//! | `size` | bytes of the file; absent if it is empty (1) |
//! | `payload` | the bytes, in base64 (2); a CRC-64 of the file (1), which is not read |
//! | `name`, `name_raw`, `position` | not read: order is enough |

use std::io::{self, BufRead, Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::BadTable;

/// Bytes of a line: a megabyte, which is what an extended header may have and in which padding is written, in base64,
/// and headers around it.
const LINE_BYTES_MAX: u64 = 2 << 20;
const FILE: u8 = 1;
const SEGMENT: u8 = 2;

/// What comes next in the tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// So many bytes of a file's data.
    File(u64),
    /// These bytes.
    Segment(Vec<u8>),
}

/// Gives the records, one after the other.
#[derive(Debug)]
pub struct Records<R> {
    input: R,
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: u8,
    #[serde(default)]
    size: u64,
    payload: Option<&'a str>,
}

impl<R: BufRead> Records<R> {
    /// Reads an inflated tar-split.
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new() }
    }

    /// The next record; `None` behind the last. [`BadTable`] is inside of the error if the tar-split is wrong.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        self.line.clear();
        let mut limited = self.input.by_ref().take(LINE_BYTES_MAX);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.len() as u64 == LINE_BYTES_MAX {
            return Err(BadTable::new("a line of the tar-split has more than 2 MiB").into());
        }
        let line: Line<'_> = serde_json::from_slice(&self.line)
            .map_err(|error| BadTable::new(format!("a line of the tar-split cannot be read: {error}")))?;
        match line.r#type {
            FILE => Ok(Some(Record::File(line.size))),
            SEGMENT => {
                let bytes = STANDARD.decode(line.payload.unwrap_or_default());
                let bytes = bytes.map_err(|_| BadTable::new("the tar-split has bytes that are no base64"))?;
                Ok(Some(Record::Segment(bytes)))
            }
            _ => Err(BadTable::new("the tar-split has a record of a type that is not known").into()),
        }
    }
}
