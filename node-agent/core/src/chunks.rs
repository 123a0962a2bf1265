//! Layers with a chunk table: a layer of which single files can be fetched.
//!
//! There are two forms. That of eStargz, which is gzip, is in [`estargz`]. The other is zstd:chunked, as
//! github.com/containers/storage writes it (`pkg/chunked/internal/minimal/compression.go`,
//! `pkg/chunked/compressor/compressor.go`). Its blob is an ordinary layer compressed by zstd, in which each file's data
//! has frames of its own; behind it, in frames that other programs skip:
//!
//! | frame | content |
//! |---|---|
//! | table | JSON, compressed by zstd, see [`table`] |
//! | tar-split | what the tar has beside the data of its files, compressed by zstd, see [`tar_split`] |
//! | footer | 64 bytes: offset, length and inflated length of the table, its kind (1), the same three numbers of the tar-split, all of 8 bytes, little-endian, and the magic `GNUlInUx` |
//!
//! The footer says what the annotations of the layer's descriptor say too ([`position`]). It is not read: what it says
//! has no digest.
//!
//! With the tar-split and the data of all files, wherever they are from, the layer's tar comes out byte by byte. So the
//! layer is checked by its diff ID as one that is fetched whole, and gives the same slot. What the table says is believed
//! only as far as what is fetched by it is concerned; a table that is wrong costs time.
//!
//! A tar-split is a third as large as a table, and mostly says the same once more. Where the tar was written by a usual
//! program it need not be fetched: see [`predicted`].

pub mod cut;
pub mod estargz;
pub mod plan;
pub mod position;
pub mod predicted;
pub mod table;
mod tar_header;
pub mod tar_split;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, io};

/// Why a layer's chunk table cannot be used. The layer can be fetched whole.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the layer's chunk table cannot be used: {0}")]
pub struct BadTable(pub Cow<'static, str>);

impl BadTable {
    /// Says what is wrong.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }
}

impl From<BadTable> for io::Error {
    fn from(bad: BadTable) -> Self {
        Self::new(io::ErrorKind::InvalidData, bad)
    }
}
