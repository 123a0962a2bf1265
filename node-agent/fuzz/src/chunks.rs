//! Chunk tables, and what is planned and put together by them.

use std::{collections::BTreeMap, io::BufRead as _};

use evenkeel_node_agent_core::chunks::{
    estargz,
    plan::{Origin, Plan, worth_a_look},
    position::{INFLATED_MAX, Position},
    predicted::{self, Known, Writer},
    table::Table,
    tar_split::{Record, Records},
};

use super::halves;

/// Between the parts of one input.
const MARK: &[u8] = b"--part--";
const DATA_END: u64 = 1 << 20;

/// The annotations of a layer, one on a line as `NAME=VALUE`; its table; and its tar-split, both inflated.
pub fn chunk_table(bytes: &[u8]) {
    let (annotations, rest) = halves(bytes, MARK);
    let (table, tar_split) = halves(rest, MARK);
    position(annotations);
    let mut records = Records::new(tar_split);
    let mut lengths = Vec::new();
    while let Ok(Some(record)) = records.next_record() {
        if let Record::File(length) = record {
            lengths.push(length);
        }
    }
    for writer in Writer::ALL {
        predict(table, writer);
    }
    if let Ok(table) = Table::parse_estargz(table, DATA_END) {
        plan(&table, 3);
        let _ = table.chunk_length();
    }
    let _ = estargz::table_offset(tar_split, DATA_END).map(|offset| assert!(offset < DATA_END));
    let Ok(table) = Table::parse(table, DATA_END) else { return };
    for held in [0, 1, 3] {
        plan(&table, held);
    }
    let _ = table.files.iter().zip(&lengths).filter(|(file, length)| file.length == **length).count();
}

/// What is told of a table can be read, and its length is what it says.
fn predict(table: &[u8], writer: Writer) {
    let estargz = [false, true].map(|ended| Known::EStargz { ended });
    for known in [Known::ZstdChunked { inflated: DATA_END }].into_iter().chain(estargz) {
        let mut lines = Vec::new();
        let told = predicted::tar_split(table, writer, known, &mut lines);
        assert!(told.is_ok_and(|length| length == lines.len() as u64) || lines.len() as u64 <= INFLATED_MAX);
        let mut records = Records::new(&lines[..]);
        while records.next_record().expect("it is as tar-splits are").is_some() {}
    }
}

fn position(annotations: &[u8]) {
    let lines = annotations.lines().map_while(Result::ok);
    let pairs = lines.filter_map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())));
    let annotations: BTreeMap<String, String> = pairs.collect();
    let Ok(Some(position)) = Position::find(&annotations, DATA_END) else { return };
    for span in [position.table, position.tar_split] {
        assert!(span.offset + span.length <= DATA_END);
    }
    let _ = worth_a_look(&position, DATA_END);
}

/// One file of `held` is in a slot.
fn plan(table: &Table, held: u8) {
    let plan = Plan::new(table, |digest| (held > 0 && digest[0] % held == 0).then_some(()));
    assert_eq!(plan.files.len(), table.files.len());
    let mut end = 0;
    for range in &plan.ranges {
        assert!(end <= range.start && range.start < range.end && range.end <= DATA_END);
        end = range.end;
    }
    let mut ranges = plan.ranges.iter().peekable();
    for (file, planned) in table.files.iter().zip(&plan.files) {
        assert_eq!(table.chunks(file).iter().map(|chunk| chunk.length).sum::<u64>(), file.length);
        assert_eq!(planned.length, file.length);
        let Origin::Chunks(chunks) = &planned.origin else { continue };
        for (chunk, _) in chunks.iter().filter(|(chunk, place)| place.is_none() && !chunk.zeros) {
            while ranges.next_if(|range| range.end <= chunk.offset).is_some() {}
            let range = ranges.peek().expect("what is not held is fetched");
            assert!(range.start <= chunk.offset && chunk.end <= range.end);
        }
    }
    let _ = plan.saves(1000, DATA_END);
}
