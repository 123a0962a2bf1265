//! Every kind of image that registries hold gives a slot.

use std::sync::Arc;

use evenkeel_node_agent::slots::SlotState;
use serde_json::json;

use crate::{
    image::{Compressed, Dialect, Image, Recipe, index, tar},
    machine::Machine,
    registry::Registry,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_give_the_same_slot_whatever_they_came_in() {
    let (registry, machine) = (Registry::start(), Machine::empty());
    let mut seen = None;
    for (dialect, compressed) in [
        (Dialect::Oci, Compressed::Not),
        (Dialect::Oci, Compressed::Gzip),
        (Dialect::Oci, Compressed::GzipMembers),
        (Dialect::Oci, Compressed::ZstdFrames),
        (Dialect::Docker, Compressed::Not),
        (Dialect::Docker, Compressed::Gzip),
    ] {
        let image = Recipe { compressed, dialect, ..Recipe::default() }.build();
        let name = registry.push(&image, "os:1").await;
        let staged = machine.stage(&name).await.unwrap();
        let record = &staged.record;
        assert_eq!(record.digest, image.manifest.digest, "{dialect:?} {compressed:?}");
        assert_eq!((record.version.as_str(), record.image.as_str()), ("7.1", name.as_str()));
        let files = (record.kernel.clone(), record.initrd.clone(), record.filesystem_length);
        assert_eq!(*seen.get_or_insert(files.clone()), files, "{dialect:?} {compressed:?}");
        let b = machine.slot("b");
        assert!(b.state == SlotState::Complete && !b.bootable, "{b:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_as_many_layers_as_overlays_can_have() {
    let (registry, machine) = (Registry::start(), Machine::empty());
    let mut recipe = Recipe::default();
    for number in recipe.layers.len()..127 {
        recipe
            .layers
            .push(tar(&[("etc/last", format!("{number}").as_bytes()), (&format!("d/{number}"), b"x")]));
    }
    let name = registry.push(&recipe.build(), "os:1").await;
    let first = machine.stage(&name).await.unwrap();
    assert_eq!(first.record.layers.len(), 127);
    // All of them are found again by what the slot tells of itself.
    let other = machine.stage_into(&name, "a", &Arc::default()).await.unwrap();
    assert_eq!((other.cost.bytes_downloaded, other.record.root_hash), (0, first.record.root_hash));
    recipe.layers.push(tar(&[("etc/last", b"one more")]));
    let name = registry.push(&recipe.build(), "os:2").await;
    let refused = machine.stage(&name).await.unwrap_err().plan_error();
    assert!(refused.message.contains("128 layers, and 127 are the limit"), "{}", refused.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_get_the_same_bytes_and_none_is_written_twice() {
    let registry = Registry::start();
    let image =
        Recipe { labels: json!({ "org.opencontainers.image.version": "8-rc.1" }), ..Recipe::default() };
    let name = registry.push(&image.build(), "team/os:1").await;
    let (one, two) = (Machine::empty(), Machine::empty());
    let (first, second) = (one.stage(&name).await.unwrap(), two.stage(&name).await.unwrap());
    assert_eq!(first.record.root_hash, second.record.root_hash);
    assert_eq!(first.record.version, "8-rc.1");
    assert!(first.cost.bytes_downloaded > 1_000_000 && first.cost.bytes_written > 1_000_000);

    let again = one.stage(&name).await.unwrap();
    assert_eq!((again.record, again.cost.bytes_downloaded, again.cost.bytes_written), (first.record, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_is_there_needs_no_registry() {
    let machine = Machine::empty();
    let pinned = {
        let registry = Registry::start();
        let image = Recipe::default().build();
        registry.push(&image, "os:1").await;
        let pinned = format!("{}@{}", registry.reference("os"), image.manifest.digest);
        machine.stage(&pinned).await.unwrap();
        pinned
    };
    assert_eq!(machine.stage(&pinned).await.unwrap().cost.bytes_downloaded, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_lost_a_byte_is_written_again() {
    let (registry, machine) = (Registry::start(), Machine::empty());
    let name = registry.push(&Recipe::default().build(), "os:1").await;
    let first = machine.stage(&name).await.unwrap();
    let region = machine.disk.slot("b").unwrap();
    let at = first.record.initrd.offset + 5;
    let file = region.open_rw().unwrap();
    let mut byte = [0];
    file.read_at(at, &mut byte).unwrap();
    file.write_at(at, &[!byte[0]]).unwrap();
    drop(file);
    let again = machine.stage(&name).await.unwrap();
    assert!(again.cost.bytes_written > 0);
    assert_eq!(again.record.root_hash, first.record.root_hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_the_image_for_this_machine_is_taken() {
    let (registry, machine) = (Registry::start(), Machine::empty());
    let build = |architecture, version: &str| -> Image {
        let labels = json!({ "org.opencontainers.image.version": version });
        Recipe { architecture, labels, ..Recipe::default() }.build()
    };
    let (arm, intel) = (build("arm64", "on-arm"), build("amd64", "on-intel"));
    registry.push(&arm, "os:arm").await;
    registry.push(&intel, "os:intel").await;
    let index = index(&[(&arm, "arm64"), (&intel, "amd64")]);
    let name = registry.push_manifest(&index, "os:1").await;
    let record = machine.stage(&name).await.unwrap().record;
    let expected = if cfg!(target_arch = "aarch64") { (arm, "on-arm") } else { (intel, "on-intel") };
    assert_eq!((record.manifest_digest, record.version.as_str()), (expected.0.manifest.digest, expected.1));
    assert_eq!(record.digest, index.digest);
}
