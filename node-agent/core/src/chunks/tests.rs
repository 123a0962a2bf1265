//! Tables as they should be, what is refused of others, and what is planned.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    estargz,
    plan::{Origin, Plan, Planned, REQUEST_BYTES, worth_a_look},
    position::{COMPRESSED_MAX, INFLATED_MAX, Position, Span},
    table::Table,
    tar_split::{Record, Records},
};
use crate::digest::hex;

fn digest(byte: u8) -> String {
    format!("sha256:{}", hex(&[byte; 32]))
}

fn annotations(table: &str, tar_split: &str) -> BTreeMap<String, String> {
    let name = |end| format!("io.github.containers.zstd-chunked.{end}");
    BTreeMap::from([
        (name("manifest-position"), table.to_owned()),
        (name("manifest-checksum"), digest(9)),
        (name("tarsplit-position"), tar_split.to_owned()),
    ])
}

/// Files of the given offsets, ends and digests, 10 bytes each.
fn table(files: &[(u64, u64, u8)]) -> Table {
    let entries: Vec<_> = files
        .iter()
        .map(|(offset, end, byte)| {
            json!({ "type": "reg", "name": "x", "size": 10, "digest": digest(*byte), "offset": offset,
                "endOffset": end })
        })
        .collect();
    let table = json!({ "version": 1, "entries": entries, "tarSplitDigest": digest(8) });
    Table::parse(table.to_string().as_bytes(), 10 << 20).unwrap()
}

#[test]
fn annotations_say_where_a_table_is() {
    let found = Position::find(&annotations("100:20:300:1", "128:30:400"), 200).unwrap().unwrap();
    assert_eq!(found.table, Span { offset: 100, length: 20, inflated: 300 });
    assert_eq!(found.tar_split, Span { offset: 128, length: 30, inflated: 400 });
    assert_eq!((found.checksum, found.bytes(), found.data_end()), ([9; 32], 50, 100));
    assert!(worth_a_look(&found, 100) && !worth_a_look(&found, 99));
    assert_eq!(Position::find(&BTreeMap::new(), 200), Ok(None));
}

#[test]
fn positions_that_no_table_has() {
    let (large, long) = (COMPRESSED_MAX + 1, INFLATED_MAX + 1);
    for table in [
        "",
        "100",
        "100:20:300",
        "100:20:300:2",
        "100:20:300:1:1",
        "0:20:300:1",
        "100:0:300:1",
        "190:20:300:1",
        "-1:20:300:1",
        "+1:20:300:1",
        " 1:20:300:1",
        "99999999999999999999:20:300:1",
        "18446744073709551615:20:300:1",
        &format!("1:{large}:300:1"),
        &format!("1:20:{long}:1"),
    ] {
        let size = if table.contains(&large.to_string()) { u64::MAX } else { 200 };
        assert!(Position::find(&annotations(table, "128:30:400"), size).is_err(), "{table}");
        let tar_split = table.strip_suffix(":1").unwrap_or(table);
        let swapped = Position::find(&annotations("100:20:300:1", tar_split), size);
        assert!(swapped.is_err() || tar_split == "100:20:300", "{tar_split}");
    }
}

#[test]
fn a_file_of_chunks_has_their_frames_and_zeros_are_not_fetched() {
    let first = json!({ "type": "reg", "name": "x", "size": 60, "digest": digest(1), "offset": 100,
        "endOffset": 400, "chunkSize": 10, "chunkDigest": digest(2) });
    let chunk = |at, size, offset, kind| {
        json!({ "type": "chunk", "name": "x", "chunkOffset": at, "chunkSize": size, "offset": offset,
            "chunkDigest": digest(3), "chunkType": kind })
    };
    let entries = [first, chunk(10, 30, 200, "zeros"), chunk(40, 20, 300, "")];
    let json = json!({ "version": 1, "entries": entries, "tarSplitDigest": digest(8) });
    let table = Table::parse(json.to_string().as_bytes(), 400).unwrap();
    assert!(Table::parse(json.to_string().as_bytes(), 399).is_err(), "its end is behind that of the data");
    let chunks: Vec<_> = table
        .chunks(&table.files[0])
        .iter()
        .map(|chunk| (chunk.offset, chunk.end, chunk.length, chunk.digest[0], chunk.zeros))
        .collect();
    assert_eq!(chunks, [(100, 200, 10, 2, false), (200, 300, 30, 3, true), (300, 400, 20, 3, false)]);
    assert_eq!((table.span(&table.files[0]), table.tar_split), (100..400, Some([8; 32])));
    // The gap between is smaller than what a request costs.
    assert_eq!(Plan::new(&table, |_| None::<()>).ranges, vec![100..400]);
}

/// Where each file is held, or else each of its chunks.
fn places(plan: &Plan<u8>) -> Vec<Vec<Option<u8>>> {
    let of_file = |file: &Planned<u8>| match &file.origin {
        Origin::Held(place) => vec![Some(*place)],
        Origin::Chunks(chunks) => chunks.iter().map(|(_, place)| *place).collect(),
    };
    plan.files.iter().map(of_file).collect()
}

#[test]
fn what_is_held_is_not_fetched_and_small_gaps_are() {
    let gap = REQUEST_BYTES;
    let table = table(&[
        (100, 200, 1),
        (200, 200 + gap, 7),
        (200 + gap, 300 + gap, 2),
        (300 + gap, 301 + 2 * gap, 7),
        (301 + 2 * gap, 400 + 2 * gap, 3),
    ]);
    let plan = Plan::new(&table, |digest| (digest[0] == 7).then_some(digest[0]));
    assert_eq!(places(&plan), [vec![None], vec![Some(7)], vec![None], vec![Some(7)], vec![None]]);
    assert_eq!((plan.files[1].length, plan.files[1].span), (10, gap));
    assert_eq!(plan.ranges, [100..300 + gap, 301 + 2 * gap..400 + 2 * gap]);
    assert_eq!((plan.bytes(), plan.cost(50)), (200 + gap + 99, 200 + gap + 99 + 50 + 3 * gap));
    assert!(plan.saves(50, 350 + 3 * gap) && !plan.saves(50, 349 + 3 * gap));
    let all = Plan::new(&table, |_| Some(()));
    assert!(all.ranges.is_empty() && all.saves(10, 11) && !all.saves(10, 10));
}

#[test]
fn of_a_file_that_is_not_held_the_chunks_that_are_not_held_are_fetched() {
    let ends = [100, 200 + REQUEST_BYTES, 300 + REQUEST_BYTES];
    let first = json!({ "type": "reg", "name": "a/x", "size": 60, "digest": digest(1), "offset": 10,
        "endOffset": ends[2], "chunkSize": 20, "chunkDigest": digest(2) });
    let chunk = |at, offset, byte| {
        json!({ "type": "chunk", "name": "a/x", "chunkOffset": at, "chunkSize": 20, "offset": offset,
            "chunkDigest": digest(byte) })
    };
    let entries = [first, chunk(20, ends[0], 3), chunk(40, ends[1], 4)];
    let json = json!({ "version": 1, "entries": entries, "tarSplitDigest": digest(8) });
    let table = Table::parse(json.to_string().as_bytes(), ends[2]).unwrap();
    let name = super::table::name;
    assert!(table.files[0].name == name(b"b/x") && name(b"x") == name(b"b/x") && name(b"x") != name(b"x/y"));
    let plan = |held: u8| Plan::new(&table, |digest| (digest[0] == held).then_some(held));
    assert!(plan(1).files[0].origin == Origin::Held(1) && plan(1).ranges.is_empty());
    assert_eq!(places(&plan(9)), [[None; 3]]);
    let one = plan(3);
    assert_eq!(places(&one), [[None, Some(3), None]]);
    assert_eq!(one.ranges, [10..ends[0], ends[1]..ends[2]]);
}

#[test]
fn tables_that_are_refused_and_why() {
    let chunk = json!({ "type": "chunk", "name": "x", "chunkOffset": 10, "chunkSize": 5, "offset": 160,
        "chunkDigest": digest(3) });
    let entries = json!([
        { "type": "dir", "name": "d" },
        { "type": "reg", "name": "x", "size": 15, "digest": digest(1), "offset": 100, "endOffset": 200,
          "chunkSize": 10, "chunkDigest": digest(2), "chunkType": "" },
        chunk,
        { "type": "reg", "name": "y", "size": 3, "digest": digest(4), "offset": 200, "endOffset": 300 },
    ]);
    let table = json!({ "version": 1, "entries": entries, "tarSplitDigest": digest(8) });
    let refused =
        |table: &Value| Table::parse(table.to_string().as_bytes(), 300).map_err(|bad| bad.to_string());
    assert_eq!(refused(&table).unwrap().files.len(), 2);
    for (place, value, words) in [
        ("/version", json!(2), "version"),
        ("/version", json!("1"), "cannot be read"),
        ("/entries", json!(null), "a list of entries"),
        ("/tarSplitDigest", json!(null), "no digest of a tar-split"),
        ("/tarSplitDigest", json!("sha512:00"), "no digest of a tar-split"),
        ("/entries/1/type", json!("dir"), "belongs to no file"),
        ("/entries/1/size", json!(-3), "cannot be read"),
        ("/entries/1/size", json!(16), "not as many bytes"),
        ("/entries/1/digest", json!(null), "a file has no sha256 digest"),
        ("/entries/1/chunkDigest", json!(null), "a chunk has no sha256 digest"),
        ("/entries/1/chunkSize", json!(0), "one behind the other"),
        ("/entries/1/chunkType", json!("ones"), "type that is not known"),
        ("/entries/1/offset", json!(160), "one behind the other"),
        ("/entries/1/endOffset", json!(150), "one behind the other"),
        ("/entries/2/chunkOffset", json!(11), "one behind the other"),
        ("/entries/2/chunkSize", json!(u64::MAX), "more bytes than there can be"),
        ("/entries/3/offset", json!(199), "one behind the other"),
        ("/entries/3/endOffset", json!(301), "behind the layer's data"),
        ("/entries/3/endOffset", json!(1e40), "cannot be read"),
    ] {
        let mut table = table.clone();
        *table.pointer_mut(place).unwrap() = value;
        let said = refused(&table).unwrap_err();
        assert!(said.contains(words), "{place}: {words:?} is not in: {said}");
    }
    assert!(Table::parse(&b"{\"version\":1"[..], 300).is_err());
}

/// A table of a file of one chunk, and of one of three.
fn estargz_table() -> Value {
    let reg = |name, size, offset, byte| {
        json!({ "type": "reg", "name": name, "size": size, "offset": offset, "digest": digest(byte),
            "chunkDigest": digest(byte + 1) })
    };
    let chunk = |at, offset, byte| json!({ "type": "chunk", "name": "large", "chunkOffset": at, "offset": offset, "chunkDigest": digest(byte) });
    let (mut large, mut middle) = (reg("large", 25, 150, 3), chunk(10, 200, 5));
    (large["chunkSize"], middle["chunkSize"]) = (json!(10), json!(10));
    let entries =
        [reg("one", 7, 90, 1), json!({ "type": "dir", "name": "d" }), large, middle, chunk(20, 210, 6)];
    json!({ "version": 1, "entries": entries })
}

#[test]
fn a_member_of_an_estargz_ends_where_the_next_one_begins() {
    let parse = |end| Table::parse_estargz(estargz_table().to_string().as_bytes(), end);
    let table = parse(300).unwrap();
    let chunks = |file: usize| -> Vec<_> {
        let chunks = table.chunks(&table.files[file]).iter();
        chunks.map(|chunk| (chunk.offset, chunk.end, chunk.length, chunk.digest[0])).collect()
    };
    assert_eq!(chunks(0), [(90, 150, 7, 2)]);
    assert_eq!(chunks(1), [(150, 200, 10, 4), (200, 210, 10, 5), (210, 300, 5, 6)]);
    assert_eq!((table.files[0].digest, table.files[1].digest), ([1; 32], [3; 32]));
    assert_eq!((table.chunk_length(), table.tar_split), (Some(10), None));
    assert!(parse(210).is_err() && parse(211).is_ok());
}

#[test]
fn tables_of_estargz_that_are_refused_and_why() {
    for (place, value, words) in [
        ("/version", json!(2), "version"),
        ("/entries/0/innerOffset", json!(1), "share a member"),
        ("/entries/3/innerOffset", json!(1), "share a member"),
        ("/entries/0/chunkDigest", json!(null), "a chunk has no sha256 digest"),
        ("/entries/0/digest", json!(null), "a file has no sha256 digest"),
        ("/entries/2/chunkSize", json!(11), "one behind the other"),
        ("/entries/2/chunkSize", json!(null), "cannot be read"),
        ("/entries/2/offset", json!(90), "one behind the other"),
        ("/entries/4/chunkOffset", json!(26), "one behind the other"),
        ("/entries/4/chunkSize", json!(6), "not as many bytes"),
        ("/entries/4/offset", json!(200), "one behind the other"),
        ("/entries/4/offset", json!(u64::MAX), "one behind the other"),
    ] {
        let mut table = estargz_table();
        table.pointer_mut(place.rsplit_once('/').unwrap().0).unwrap()[place.rsplit_once('/').unwrap().1] =
            value;
        let said = Table::parse_estargz(table.to_string().as_bytes(), 300).unwrap_err().to_string();
        assert!(said.contains(words), "{place}: {words:?} is not in: {said}");
    }
}

/// The footer of a layer whose table begins at byte 1687, by estargz 0.19.1.
const FOOTER: &str =
    "1f8b08040000000000ff1a00534716003030303030303030303030303036393753544152475a010000ffff0000000000000000";

#[test]
fn a_footer_says_where_the_table_begins() {
    let footer: Vec<u8> = FOOTER
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let at = |footer: &[u8], size| estargz::table_offset(footer, size).map_err(|bad| bad.to_string());
    assert_eq!(footer.len() as u64, estargz::FOOTER_BYTES);
    assert_eq!(at(&footer, 2904), Ok(1687));
    assert_eq!(at(&footer, 1687 + 51 + 1), Ok(1687));
    assert!(at(&footer, 1687 + 51).unwrap_err().contains("does not name a place"));
    assert!(at(&footer, 20).unwrap_err().contains("does not name a place"));
    assert!(at(&footer, 1687 + 51 + COMPRESSED_MAX + 1).unwrap_err().contains("32 MiB"));
    let mut none = footer.clone();
    none[16..32].fill(b'0');
    assert!(at(&none, 2904).unwrap_err().contains("does not name a place"));
    for place in 0..footer.len() {
        let mut broken = footer.clone();
        broken[place] ^= 0x80;
        assert!(at(&broken, 2904).unwrap_err().contains("does not end with the footer"), "{place}");
    }
    assert!(at(&footer[1..], 2904).is_err() && at(b"", 2904).is_err());
}

#[test]
fn the_json_of_a_table_is_in_an_entry_of_its_own() {
    let mut member = vec![0; 512];
    member[..17].copy_from_slice(b"stargz.index.json");
    member[124..136].copy_from_slice(b"00000000005\0");
    member[156] = b'0';
    member.extend(b"12345 and more");
    let read = |member: &[u8]| {
        let mut text = String::new();
        estargz::json(member)
            .map(|mut json| std::io::Read::read_to_string(&mut json, &mut text).map(|_| text))
    };
    assert_eq!(read(&member).unwrap().unwrap(), "12345");
    for (at, byte) in [(0, b'x'), (17, b'x'), (130, b'9'), (156, b'5')] {
        let mut other = member.clone();
        other[at] = byte;
        assert!(read(&other).is_err(), "{at}");
    }
    assert!(read(&member[..511]).is_err());
}

#[test]
fn records_that_are_refused_and_why() {
    for (line, words) in [
        (r#"{"type":3}"#, "type that is not known"),
        (r#"{"type":2,"payload":"AAA"}"#, "no base64"),
        (r#"{"type":1,"size":-1}"#, "cannot be read"),
        (r#"{"size":1}"#, "cannot be read"),
        ("\n", "cannot be read"),
    ] {
        let said = Records::new(line.as_bytes()).next_record().unwrap_err().to_string();
        assert!(said.contains(words), "{line}: {words:?} is not in: {said}");
    }
}

#[test]
fn a_tar_split_is_read_line_by_line() {
    let text = "{\"type\":2,\"payload\":\"YWI=\",\"position\":0}\n\
        {\"type\":1,\"name\":\"a\",\"size\":3,\"payload\":\"AAAAAAAAAAA=\",\"position\":1}\n\
        {\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":2}\n";
    let mut records = Records::new(text.as_bytes());
    let mut next = || records.next_record().unwrap();
    assert_eq!(next(), Some(Record::Segment(b"ab".to_vec())));
    assert_eq!((next(), next(), next()), (Some(Record::File(3)), Some(Record::File(0)), None));
    let long = format!("{{\"type\":2,\"payload\":\"{}\"}}", "A".repeat(2 << 20));
    let error = Records::new(long.as_bytes()).next_record().unwrap_err();
    assert!(error.to_string().contains("2 MiB"), "{error}");
}
