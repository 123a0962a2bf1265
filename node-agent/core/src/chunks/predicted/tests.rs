//! Tables that containers/storage 1.59.1 made of tars: what is told from them puts these tars together.

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        tar_header::BLOCK,
        tar_split::{Record, Records},
    },
    *,
};
use crate::digest::hex;

/// A tree with every kind of entry, attributes, large owners, names that are long or not ASCII, all files full of `x`: its
/// table, the length of its tar-split and the SHA-256 of its tar. The first tar is by `pkg/archive` of containers/storage,
/// the second, with parts of seconds too, by GNU tar 1.34.
const REAL: [(Writer, &str, u64, &str); 2] = [
    (
        Writer::Go,
        include_str!("../testdata/go.json"),
        46268,
        "127d9c0cfa247589e4b4a9038a699d3006956e9f14bb9abe3527a649296903bf",
    ),
    (
        Writer::Gnu,
        include_str!("../testdata/gnu.json"),
        58054,
        "c4fee48b62d9eda83a4cfcf7076316b7a3bbeff2065854200fd84216dabe298f",
    ),
];

/// The same by estargz 0.19.1 of the stargz snapshotter, with chunks of 1000 bytes, in its two ways: anew, with names of owners
/// and a file of its own, and with what the tar was before; and the SHA-256 of the tar before the table's own entry.
const ESTARGZ: [(bool, &str, &str); 2] = [
    (
        false,
        include_str!("../testdata/estargz-built.json"),
        "fdc795954c215dd8af586e3f84b297ed34b62ec906ed3a376253c5f179bf9535",
    ),
    (
        true,
        include_str!("../testdata/estargz-lossless.json"),
        "49ccbffff2c89299d1d50555a3fa13846c39d6bfa72a98195d282fd68713015e",
    ),
];
/// What is in the file of one byte that estargz adds.
const LANDMARK: u8 = 0x0f;

fn predict(table: &str, writer: Writer, inflated: u64) -> Result<Vec<u8>, String> {
    predict_of(table, writer, Known::ZstdChunked { inflated })
}

fn predict_of(table: &str, writer: Writer, known: Known) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let length = tar_split(table.as_bytes(), writer, known, &mut out).map_err(|bad| bad.to_string())?;
    assert_eq!(length, out.len() as u64);
    Ok(out)
}

/// The tar, with files full of `x`; those of a single byte have another one.
fn tar(tar_split: &[u8], single: u8) -> Vec<u8> {
    let (mut records, mut tar) = (Records::new(tar_split), Vec::new());
    while let Some(record) = records.next_record().unwrap() {
        match record {
            Record::Segment(bytes) => tar.extend(bytes),
            Record::File(1) => tar.push(single),
            Record::File(length) => tar.resize(tar.len() + usize::try_from(length).unwrap(), b'x'),
        }
    }
    tar
}

#[test]
fn what_usual_programs_write_is_told_byte_by_byte() {
    for (writer, table, inflated, digest) in REAL {
        let tar = tar(&predict(table, writer, inflated).unwrap(), b'x');
        assert_eq!(hex(&Sha256::digest(&tar)), digest, "{writer:?}");
        for other in [inflated - 1, inflated + 1, 0, u64::MAX] {
            assert!(predict(table, writer, other).is_err(), "{writer:?}: {other}");
        }
        let others = Writer::ALL.into_iter().filter(|other| *other != writer);
        others.for_each(|other| assert!(predict(table, other, inflated).is_err(), "not by {other:?}"));
    }
}

#[test]
fn what_estargz_writes_is_told_byte_by_byte() {
    for (ended, table, digest) in ESTARGZ {
        let made = |ended| tar(&predict_of(table, Writer::Go, Known::EStargz { ended }).unwrap(), LANDMARK);
        assert_eq!(hex(&Sha256::digest(made(ended))), digest, "{ended}");
        let (longer, shorter) = (made(true), made(false));
        assert!(longer.len() == shorter.len() + 2 * BLOCK && longer.starts_with(&shorter));
        assert!(predict(table, Writer::Go, u64::MAX).is_err(), "a file has no time");
    }
}

#[test]
fn tables_of_which_nothing_is_told_and_why() {
    let entry =
        json!({ "type": "reg", "name": "a", "size": 3, "mode": 0o644, "modtime": "2024-05-06T07:08:09Z" });
    for (field, value, words) in [
        ("type", json!("socket"), "is not known how its header is written"),
        ("modtime", json!(null), "is not known how"),
        ("modtime", json!("1969-12-31T23:59:59Z"), "is not known how"),
        ("modtime", json!("2024-05-06T07:08:09.5Z"), "is not known how"),
        ("modtime", json!("yesterday"), "cannot be told"),
        ("uid", json!(1 << 21), "is not known how"),
        ("size", json!(1_u64 << 33), "is not known how"),
        ("mode", json!(-1), "cannot be told"),
        ("xattrs", json!({ "user.a": "?" }), "cannot be told"),
        ("xattrs", json!({ "user.a": "A".repeat(XATTR_BYTES_MAX) }), "too many attributes"),
        ("name", json!("\u{fc}/../a"), "is not known how"),
        ("mode", json!(0o644), "it would be shorter"),
    ] {
        let mut entry = entry.clone();
        entry[field] = value;
        let table = json!({ "version": 1, "entries": [entry] }).to_string();
        let said = predict(&table, Writer::Go, u64::MAX).unwrap_err();
        assert!(said.contains(words), "{field}: {words:?} is not in: {said}");
    }
}

fn an_entry() -> impl Strategy<Value = Value> {
    let path = "[a-zß./ &\"]{1,40}(/[a-z]{30,90}){0,3}/?";
    let kind = prop::sample::select(vec!["reg", "dir", "symlink", "hardlink", "char", "chunk"]);
    let xattrs = prop::collection::btree_map("[a-z]{1,9}", "(QUJD){0,60}", 0..3);
    let numbers = (0..0o10000_u32, 0..3_000_000_u32, 0..3000_u32, 0..2_000_000_000_i64, 0..2_i32);
    (kind, path, "[a-zß/]{0,120}", numbers, xattrs).prop_map(|(kind, name, link, numbers, xattrs)| {
        let (mode, uid, size, seconds, nanoseconds) = numbers;
        let mtime = Timestamp::new(seconds, nanoseconds * 500_000_000).unwrap();
        let size = if kind == "reg" { size } else { 0 };
        json!({ "type": kind, "name": name, "linkName": link, "mode": mode, "uid": uid, "size": size,
            "modtime": mtime, "xattrs": xattrs })
    })
}

proptest! {
    #[test]
    fn what_is_told_is_a_tar_of_the_tables_files(entries in prop::collection::vec(an_entry(), 0..12)) {
        let table = json!({ "entries": entries }).to_string();
        for writer in Writer::ALL {
            // What there is before it is found to be too short.
            let mut out = Vec::new();
            let known = Known::ZstdChunked { inflated: u64::MAX };
            let said = tar_split(table.as_bytes(), writer, known, &mut out).unwrap_err();
            if !said.to_string().contains("shorter") {
                continue;
            }
            prop_assert_eq!(&predict(&table, writer, out.len() as u64).unwrap(), &out);
            let tar = tar(&out, b'x');
            prop_assert!(tar.len().is_multiple_of(BLOCK) && tar.ends_with(&[0; 2 * BLOCK]));
            let mut lengths = Vec::new();
            let mut at = 0;
            while tar[at + 156] != 0 {
                let header = &tar[at..at + BLOCK];
                let number = |from: usize, to| u64::from_str_radix(str::from_utf8(&header[from..to]).unwrap(), 8);
                let blanks = header[..148].iter().chain(&[b' '; 8]).chain(&header[156..]);
                prop_assert_eq!(number(148, 154).unwrap(), blanks.map(|byte| u64::from(*byte)).sum::<u64>());
                let size = number(124, 135).unwrap();
                if header[156] != b'x' {
                    lengths.push(size);
                }
                at += BLOCK + usize::try_from(size).unwrap().next_multiple_of(BLOCK);
            }
            let files = entries.iter().filter(|entry| entry["type"] != "chunk");
            let expected: Vec<_> = files.map(|entry| entry["size"].as_u64().unwrap()).collect();
            prop_assert_eq!(lengths, expected);
        }
    }
}
