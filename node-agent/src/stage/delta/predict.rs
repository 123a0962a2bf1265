//! Whether a layer can be put together without its tar-split, or though it has none, tried out before its slot is touched.

use std::io::{self, Write};

use evenkeel_node_agent_core::{
    chunks::{
        BadTable,
        position::{COMPRESSED_MAX, Position},
        predicted::{self, Known, Writer},
    },
    digest::unhex,
};
use sha2::{Digest as _, Sha256};

use super::{Delta, assemble, prepare::inflate};
use crate::stage::Meter;

/// As tar-splits are compressed that are fetched: it is kept in memory.
const ZSTD_LEVEL: i32 = 3;

/// The tar-split that belongs to a compressed table of zstd:chunked if a usual program wrote the layer's tar, compressed.
pub(super) fn tar_split(table: &[u8], position: &Position) -> Option<Vec<u8>> {
    let known = Known::ZstdChunked { inflated: position.tar_split.inflated };
    let attempt = |writer| told(writer, known, || inflate(table, position.table.inflated));
    Writer::ALL.into_iter().find_map(attempt).map(|(told, _)| told)
}

/// How tars of eStargz are written, the most usual first: anew by the snapshotter's own programs, and as it was by `BuildKit`.
pub(super) const OF_ESTARGZ: [(Writer, Known); 3] = [
    (Writer::Go, Known::EStargz { ended: false }),
    (Writer::Go, Known::EStargz { ended: true }),
    (Writer::Gnu, Known::EStargz { ended: true }),
];

/// The tar-split that belongs to the JSON of a table if `writer` wrote the layer's tar, compressed, and its bytes when inflated.
pub(super) fn told<R: io::Read>(
    writer: Writer,
    known: Known,
    json: impl Fn() -> Result<R, BadTable>,
) -> Option<(Vec<u8>, u64)> {
    let tell = || -> io::Result<_> {
        let mut out = zstd::stream::write::Encoder::new(Bounded(Vec::new()), ZSTD_LEVEL)?;
        let length = predicted::tar_split(json()?, writer, known, &mut out)?;
        Ok((out.finish()?.0, length))
    };
    tell().inspect_err(|error| tracing::debug!(?writer, %error, "another wrote the layer's tar")).ok()
}

/// Whether the layer comes out as its diff ID says. An error means that it must be fetched whole, or that it was asked to
/// stop.
pub(super) fn comes_out(delta: &Delta, diff_id: &str, meter: &Meter) -> io::Result<bool> {
    let mut out = Hashing { hash: Sha256::new(), meter };
    // What is read here is neither progress nor taken over.
    assemble::put(delta, &mut delta.fetched.as_deref().unwrap_or_default(), &Meter::default(), &mut out)?;
    Ok(unhex(diff_id).is_some_and(|expected| out.hash.finalize()[..] == expected))
}

/// As much as a tar-split may have that is fetched.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > COMPRESSED_MAX {
            return Err(io::Error::other("it would be larger than 32 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what is written, until it is asked to stop.
pub(super) struct Hashing<'a> {
    pub hash: Sha256,
    pub meter: &'a Meter,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.meter.is_stopped() {
            return Err(io::Error::other("staging was stopped"));
        }
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
