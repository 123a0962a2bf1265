//! Whether a layer in the form of eStargz is worth to be put together. Its headers are told and never fetched, so that this is
//! tried out to the last byte before the slot is touched.

use std::io::{self, BufReader, Read};

use evenkeel_node_agent_core::chunks::{
    BadTable,
    estargz::{self, FOOTER_BYTES},
    plan::{Plan, REQUEST_BYTES},
    table::Table,
};
use evenkeel_registry::Layer;
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::{
    Asking, Delta, Form, held,
    predict::{self, Hashing},
    prepare::{Held, Not, NotWorthIt, unless_stopped},
};
use crate::stage::{Meter, StageError, blocking, priority};

/// How to put the layer together, whose table has this digest. What is fetched to try it out is taken from `left`.
pub(super) async fn put_together(
    asking: &mut Asking<'_>,
    layer: &Layer,
    digest: [u8; 32],
    held: &Held,
    background: bool,
    left: &mut u64,
) -> Result<Delta, Not> {
    let meter = asking.meter.clone();
    let (begin, member) = unless_stopped(&meter, table_member(asking, layer)).await?;
    let (held, meter_here, size, may_try) = (held.clone(), meter.clone(), layer.size, *left);
    let search = move || {
        let _yielding = background.then(priority::yield_the_disk);
        let table = match table(&member, digest, begin, &meter_here) {
            Ok(table) => table,
            Err(error) => return Ok(Err(error.into())),
        };
        let held = held::find(&table, &held, &meter_here);
        let plan = Plan::new(&table, |digest| held.place(digest));
        if meter_here.is_stopped() {
            return Err(StageError::Stopped);
        }
        if !plan.saves(0, size) {
            return Ok(Err(NotWorthIt::NoGain { cost: plan.cost(0), size }));
        }
        if plan.bytes() > may_try {
            return Ok(Err(NotWorthIt::Untried(plan.bytes())));
        }
        let form = Form::EStargz { table: member };
        Ok(Ok(Delta { plan, form, tar_split: (Vec::new(), 0), slots: held.slots, fetched: None }))
    };
    let mut delta = blocking(search).await??;
    *left -= delta.plan.bytes();
    delta.fetched = Some(unless_stopped(&meter, asking.ranges(layer, &delta.plan)).await?);
    let (diff_id, meter_here) = (layer.diff_id.clone(), meter.clone());
    let try_out = move || {
        let _yielding = background.then(priority::yield_the_disk);
        let tried = with_headers(delta, &diff_id, &meter_here);
        if meter_here.is_stopped() { Err(StageError::Stopped) } else { Ok(tried) }
    };
    Ok(blocking(try_out).await??)
}

/// The member with the table, and where it begins.
async fn table_member(asking: &mut Asking<'_>, layer: &Layer) -> Result<(u64, Vec<u8>), NotWorthIt> {
    let size = layer.size;
    let end = size.checked_sub(FOOTER_BYTES).ok_or(BadTable::new("the layer is too small to have one"))?;
    let footer = asking.part(layer, end..size).await?;
    let begin = estargz::table_offset(&footer, size)?;
    // As with the other form: where the table is much of the layer, little can be saved.
    let cost = end - begin + REQUEST_BYTES;
    if cost > size / 2 {
        return Err(NotWorthIt::NoGain { cost, size });
    }
    Ok((begin, asking.part(layer, begin..end).await?))
}

fn json(member: &[u8]) -> Result<impl Read, BadTable> {
    estargz::json(BufReader::with_capacity(64 << 10, GzDecoder::new(member)))
}

/// The table, if it is the one that the manifest means.
fn table(member: &[u8], digest: [u8; 32], begin: u64, meter: &Meter) -> Result<Table, BadTable> {
    let mut hashing = Hashing { hash: Sha256::new(), meter };
    io::copy(&mut json(member)?, &mut hashing).map_err(|_| BadTable::new("it cannot be inflated"))?;
    if hashing.hash.finalize()[..] != digest {
        return Err(BadTable::new("it has another digest than the manifest says"));
    }
    Table::parse_estargz(BufReader::new(json(member)?), begin)
}

/// With the headers with which the layer comes out as its diff ID says.
fn with_headers(mut delta: Delta, diff_id: &str, meter: &Meter) -> Result<Delta, NotWorthIt> {
    for (writer, known) in predict::OF_ESTARGZ {
        let told = match &delta.form {
            Form::EStargz { table } => predict::told(writer, known, || json(table)),
            Form::ZstdChunked => None,
        };
        let Some(told) = told else { continue };
        delta.tar_split = told;
        if predict::comes_out(&delta, diff_id, meter).map_err(NotWorthIt::Parts)? {
            return Ok(delta);
        }
    }
    Err(NotWorthIt::Headers)
}
