//! A layer with a chunk table is put together from what the disk holds and a few parts, and gives the slot that the whole
//! layer gives; whatever is wrong with the table costs no more than the whole layer's download.

use std::{sync::Arc, time::Duration};

use evenkeel_node_agent::{
    slot::verity,
    stage::{Meter, Staged},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    chunked::{CHECKSUM, Chunked, TABLE, TAR_SPLIT},
    image::{Blob, INITRD, Image, KERNEL, LOADER, Recipe, noise, tar, ustar},
    machine::Machine,
    odd_server::{Habits, OddServer},
    registry::Registry,
};

const MIB: usize = 1 << 20;

/// One layer with everything in it. From version to version a file in its middle changes, and one comes.
fn layer(version: u64) -> Vec<u8> {
    with_files(version, tar)
}

fn with_files(version: u64, tar: impl Fn(&[(&str, &[u8])]) -> Vec<u8>) -> Vec<u8> {
    let holes = [noise(60_000, 5), vec![0; 3 * 50_000], noise(7, 6)].concat();
    let (changed, new) = (noise(90_000, version), noise(3000, 100 + version));
    tar(&[
        (LOADER, b"MZ"),
        (KERNEL, &noise(300_000, 1)),
        (INITRD, &noise(700_001, 2)),
        ("usr/lib/big", &noise(4 * MIB, 3)),
        ("usr/lib/changed", &changed),
        ("usr/lib/empty", b""),
        ("usr/lib/holes", &holes),
        ("usr/lib/one", b"one"),
        ("usr/lib/two", b"two"),
        (&format!("usr/lib/new-{version}"), &new),
        ("usr/lib/last", &noise(200_000, 4)),
    ])
}

fn recipe(version: u64) -> Recipe {
    Recipe { layers: vec![layer(version)], ..Recipe::default() }
}

fn chunked(version: u64) -> Chunked {
    Chunked::of(&layer(version))
}

/// A disk that holds the first version in slot a.
async fn machine(registry: &Registry) -> Machine {
    let (machine, image) = (Machine::empty(), recipe(1).build());
    let name = registry.push(&image, "os:1").await;
    machine.stage_into(&name, "a", &Arc::default()).await.unwrap();
    machine
}

/// The second version, with a blob for its layer.
fn second(blob: Blob) -> Image {
    recipe(2).with_blobs(vec![blob])
}

/// What all of it comes to when the disk holds nothing.
async fn whole(registry: &Registry) -> Staged {
    let image = registry.push(&second(chunked(2).blob()), "os:whole").await;
    Machine::empty().stage(&image).await.unwrap()
}

fn unsigned(bytes: i64) -> usize {
    usize::try_from(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_no_slot_holds_is_fetched_and_the_slot_is_the_same() {
    let registry = Registry::start();
    let (machine, blob) = (machine(&registry).await, chunked(2).blob());
    let size = blob.bytes.len();
    let meter = Arc::new(Meter::default());
    let name = registry.push(&second(blob), "os:2").await;
    let staged = machine.stage_into(&name, "b", &meter).await.unwrap();
    let downloaded = unsigned(staged.cost.bytes_downloaded);
    assert!((93_000..110_000).contains(&downloaded), "{:?}", staged.cost);
    assert!(unsigned(staged.cost.bytes_copied) > 5 * MIB, "{:?}", staged.cost);
    let progress = meter.progress();
    assert_eq!((unsigned(progress.bytes_done), unsigned(progress.bytes_total)), (size, size));
    let whole = whole(&registry).await;
    assert!(unsigned(whole.cost.bytes_downloaded) == size && whole.cost.bytes_copied == 0);
    assert_eq!(staged.record.root_hash, whole.record.root_hash);
    assert!(verity::holds(&machine.disk.slot("b").unwrap(), &staged.record).unwrap());
    // Its section of the content index differs in no more than the blob's digest, which is the same here.
    let sections = |staged: &Staged| -> Vec<String> {
        staged.record.layers.iter().map(|layer| layer.index_sha256.clone()).collect()
    };
    assert_eq!(sections(&staged), sections(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_changed_in_its_slot_is_fetched() {
    let registry = Registry::start();
    let machine = machine(&registry).await;
    let file = machine.disk.slot("a").unwrap().open_rw().unwrap();
    file.write_at(3 * MIB as u64, b"these are other bytes").unwrap();
    let name = registry.push(&second(chunked(2).blob()), "os:2").await;
    let staged = machine.stage(&name).await.unwrap();
    let downloaded = unsigned(staged.cost.bytes_downloaded);
    assert!((4 * MIB..5 * MIB).contains(&downloaded), "{:?}", staged.cost);
    assert_eq!(staged.record.root_hash, whole(&registry).await.record.root_hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_are_taken_up_in_the_middle_of_a_part() {
    let registry = Registry::start();
    let machine = machine(&registry).await;
    let image = second(chunked(2).blob());
    let at = chunked(2).entry("usr/lib/changed")["offset"].as_u64().unwrap() + 70_000;
    let server = OddServer::start(&image, Habits { cuts: vec![at], ..Habits::default() }).await;
    let staged = machine.stage(&server.reference()).await.unwrap();
    assert!(unsigned(staged.cost.bytes_downloaded) < 200_000, "{:?}", staged.cost);
    // A part that broke, what was missing of it, another part, the table, and the tar-split.
    let mut asked = server.ranges(&image.layers[0].digest);
    asked.sort_unstable();
    assert!(asked.len() == 5 && asked[0] <= asked[1] && asked[1] < at && at < asked[2], "{asked:?}");
    assert_eq!(staged.record.root_hash, whole(&registry).await.record.root_hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_part_is_asked_for_while_one_comes() {
    let registry = Registry::start();
    let image = second(chunked(2).blob());
    let server = OddServer::start(&image, Habits::default()).await;
    let staged = machine(&registry).await.stage(&server.reference()).await.unwrap();
    let mut asked = server.ranges(&image.layers[0].digest);
    asked.sort_unstable();
    let habits = Habits { holds_parts_before: Some(asked[1]), ..Habits::default() };
    let server = OddServer::start(&image, habits).await;
    let (machine, name) = (machine(&registry).await, server.reference());
    let ahead =
        timeout(Duration::from_mins(2), machine.stage(&name)).await.expect("it waits for ever").unwrap();
    assert_eq!(ahead.record.root_hash, staged.record.root_hash);
    assert_eq!(ahead.cost.bytes_downloaded, staged.cost.bytes_downloaded);
}

/// The second version as a usual program writes it, or with an owner by name.
fn usual(owner: &str) -> Image {
    let layer = with_files(2, |files| ustar(files, owner));
    let blob = Chunked::of(&layer).blob();
    Recipe { layers: vec![layer], ..Recipe::default() }.with_blobs(vec![blob])
}

/// Offset and length of a part that an annotation names.
fn span(image: &Image, name: &str) -> (u64, u64) {
    let mut numbers = image.layers[0].annotations[name].split(':').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Stages it over the first version: what that took, and from where on the registry was asked for parts.
async fn staged(image: &Image) -> (Staged, Vec<u64>) {
    let registry = Registry::start();
    let machine = machine(&registry).await;
    let server = OddServer::start(image, Habits::default()).await;
    let meter = Arc::new(Meter::default());
    let staged = machine.stage_into(&server.reference(), "b", &meter).await.unwrap();
    let progress = meter.progress();
    assert_eq!(progress.bytes_done, progress.bytes_total);
    let name = registry.push(image, "os:2").await;
    let whole = Machine::empty().stage(&name).await.unwrap();
    assert_eq!(staged.record.root_hash, whole.record.root_hash);
    assert!(unsigned(staged.cost.bytes_copied) < image.layers[0].bytes.len() + MIB, "{:?}", staged.cost);
    let mut asked = server.ranges(&image.layers[0].digest);
    asked.sort_unstable();
    (staged, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_split_that_can_be_told_from_the_table_is_not_fetched() {
    let (right, wrong) = (usual(""), usual("root"));
    let (with, asked) = staged(&right).await;
    let (table, _) = span(&right, TABLE);
    // Two parts and the table.
    assert!(asked.len() == 3 && asked[1] < table && asked[2] == table, "{asked:?}");
    // What was told wrongly costs its own length, and nothing is fetched twice.
    let (without, asked) = staged(&wrong).await;
    let (tar_split, length) = span(&wrong, TAR_SPLIT);
    assert!(asked.len() == 4 && asked[3] == tar_split, "{asked:?}");
    let content =
        |staged: &Staged, image| staged.cost.bytes_downloaded.cast_unsigned() - span(image, TABLE).1;
    // Headers between the files that are fetched are a little longer with an owner.
    let (with, without) = (content(&with, &right), content(&without, &wrong) - length);
    assert!((with..with + 500).contains(&without), "{with} and {without}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_knows_no_ranges_gives_all_of_it() {
    let registry = Registry::start();
    let machine = machine(&registry).await;
    let image = second(chunked(2).blob());
    let server = OddServer::start(&image, Habits { no_ranges: true, ..Habits::default() }).await;
    let staged = machine.stage(&server.reference()).await.unwrap();
    assert_eq!(unsigned(staged.cost.bytes_downloaded), image.layers[0].bytes.len());
    assert_eq!(staged.record.root_hash, whole(&registry).await.record.root_hash);
}

/// A way to spoil a layer's table.
type Spoil = (&'static str, fn() -> Blob);

fn annotation(name: &str, value: Option<&str>) -> Blob {
    let mut blob = chunked(2).blob();
    blob.annotations.remove(name);
    if let Some(value) = value {
        blob.annotations.insert(name.to_owned(), value.to_owned());
    }
    blob
}

fn entry(name: &str, field: &str, value: Value) -> Blob {
    let mut layer = chunked(2);
    layer.entry(name)[field] = value;
    layer.blob()
}

fn record(at: usize, field: &str, value: Value) -> Blob {
    let mut layer = chunked(2);
    layer.tar_split[at][field] = value;
    layer.blob()
}

fn field(name: &str, value: Value) -> Blob {
    let layer = chunked(2);
    let mut table = layer.table();
    table[name] = value;
    layer.with_table(&table.to_string())
}

/// One for each step at which it is found; what the table's reader refuses is in its own tests.
const SPOILT: [Spoil; 11] = [
    ("a table that is nowhere", || annotation(TABLE, Some("here"))),
    ("no tar-split", || annotation(TAR_SPLIT, None)),
    ("another digest of the table", || annotation(CHECKSUM, Some(&format!("sha256:{}", "0".repeat(64))))),
    ("a table that is no JSON", || chunked(2).with_table("[{")),
    ("a tar-split with another digest", || {
        field("tarSplitDigest", json!(format!("sha256:{}", "1".repeat(64))))
    }),
    ("an empty table", || field("entries", json!([]))),
    ("the content of another file", || {
        let mut layer = chunked(2);
        layer.entry("usr/lib/one")["digest"] = layer.entry("usr/lib/two")["digest"].clone();
        layer.blob()
    }),
    ("a chunk of zeros that is none", || entry("usr/lib/changed", "chunkType", json!("zeros"))),
    ("another digest of a chunk that is fetched", || {
        entry("usr/lib/changed", "chunkDigest", json!(format!("sha256:{}", "2".repeat(64))))
    }),
    ("bytes in the tar-split that are no base64", || record(2, "payload", json!("AAA"))),
    ("a tar-split that ends early", || {
        let mut layer = chunked(2);
        layer.tar_split.truncate(9);
        layer.blob()
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_table_is_wrong_is_fetched_whole_and_gives_the_same_slot() {
    let registry = Registry::start();
    let (machine, whole) = (machine(&registry).await, whole(&registry).await);
    for (number, (what, blob)) in SPOILT.into_iter().enumerate() {
        let blob = blob();
        let size = blob.bytes.len();
        let image = registry.push(&second(blob), &format!("os:spoilt-{number}")).await;
        // Some blobs are the same as the one before.
        wipe_index(&machine);
        let staged = machine.stage(&image).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let downloaded = unsigned(staged.cost.bytes_downloaded);
        assert!((size..size + 300_000).contains(&downloaded), "{what}: {:?} of {size}", staged.cost);
        assert_eq!(staged.record.layers[0].diff_id, whole.record.layers[0].diff_id, "{what}");
        assert!(verity::holds(&machine.disk.slot("b").unwrap(), &staged.record).unwrap(), "{what}");
    }
}

/// Makes slot b forget what it holds.
fn wipe_index(machine: &Machine) {
    let region = machine.disk.slot("b").unwrap();
    let slot = region.open_rw().unwrap();
    slot.write_at(region.record_at() - 4096, &[0; 4096]).unwrap();
    slot.write_at(region.record_at(), &[0; 4096]).unwrap();
}
