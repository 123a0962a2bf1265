//! Whether a layer can be put together without its tar-split, tried out before its slot is touched.

use std::{
    io::{self, Write},
    sync::Arc,
};

use evenkeel_node_agent_core::{
    chunks::{
        position::{COMPRESSED_MAX, Position},
        predicted::{self, Writer},
    },
    digest::unhex,
};
use sha2::{Digest as _, Sha256};

use super::{Delta, assemble, prepare::inflate};
use crate::stage::Meter;

/// As tar-splits are compressed that are fetched: it is kept in memory.
const ZSTD_LEVEL: i32 = 3;

/// The tar-split that belongs to a compressed table if a usual program wrote the layer's tar, compressed.
pub(super) fn tar_split(table: &[u8], position: &Position) -> Option<Vec<u8>> {
    let predict = |writer| -> io::Result<Vec<u8>> {
        let mut out = zstd::stream::write::Encoder::new(Bounded(Vec::new()), ZSTD_LEVEL)?;
        let json = inflate(table, position.table.inflated)?;
        predicted::tar_split(json, writer, position.tar_split.inflated, &mut out)?;
        Ok(out.finish()?.0)
    };
    let attempt = |writer| {
        predict(writer).inspect_err(|error| tracing::debug!(?writer, %error, "another wrote the layer's tar"))
    };
    Writer::ALL.into_iter().find_map(|writer| attempt(writer).ok())
}

/// Whether the layer comes out as its diff ID says. An error means that it must be fetched whole, or that it was asked to
/// stop.
pub(super) fn comes_out(delta: &Delta, diff_id: &str, meter: &Arc<Meter>) -> io::Result<bool> {
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

struct Hashing<'a> {
    hash: Sha256,
    meter: &'a Meter,
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
