//! What a slot of the disk holds is neither downloaded nor written again, and never believed without a look.

use evenkeel_crds::node_plan::StagingCost;
use evenkeel_node_agent::{
    slot::{index, verity},
    stage::Staged,
};
use evenkeel_node_agent_core::{
    content_index::{Draft, entries::EntriesBuilder},
    digest::unhex,
    erofs::BLOCK,
    section_list,
    tree::{Attributes, Kind},
};
use sha2::{Digest as _, Sha256};

use crate::{
    image::{INITRD, Image, KERNEL, Recipe, noise, tar},
    machine::Machine,
    registry::Registry,
};

const MIB: usize = 1 << 20;

/// Two versions that differ in their last layer; the one between is where the machine's files come from.
pub struct Versions {
    registry: Registry,
    images: [Image; 2],
    pub names: [String; 2],
}

impl Versions {
    pub async fn new() -> Self {
        let registry = Registry::start();
        let base = tar(&[("usr/lib/one", &noise(5 * MIB, 3)), ("usr/lib/hidden", &noise(MIB, 4))]);
        let boot =
            tar(&[(KERNEL, &noise(300_000, 1)), (INITRD, &noise(700_001, 2)), ("usr/lib/.wh.hidden", b"")]);
        let top = |version: u64| tar(&[("usr/lib/top", &noise(MIB, version)), ("usr/lib/one", b"replaced")]);
        let image =
            |version| Recipe { layers: vec![base.clone(), boot.clone(), top(version)], ..Recipe::default() };
        let images = [image(10).build(), image(11).build()];
        let names = [registry.push(&images[0], "os:1").await, registry.push(&images[1], "os:2").await];
        Self { registry, images, names }
    }

    fn last_layer(&self, version: usize) -> i64 {
        i64::try_from(self.images[version].layers[2].bytes.len()).unwrap()
    }

    /// The second version on a disk that holds nothing else.
    pub async fn fresh(&self) -> Staged {
        Machine::empty().stage(&self.names[1]).await.unwrap()
    }
}

fn mib(bytes: i64) -> usize {
    usize::try_from(bytes).unwrap() / MIB
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_another_slot_holds_are_copied_and_not_downloaded() {
    let (versions, machine) = (Versions::new().await, Machine::empty());
    machine.stage_into(&versions.names[0], "a", &std::sync::Arc::default()).await.unwrap();
    for layer in &versions.images[1].layers[..2] {
        std::fs::remove_file(versions.registry.blob_file(&layer.digest)).unwrap();
    }
    let staged = machine.stage(&versions.names[1]).await.unwrap();
    let StagingCost { bytes_downloaded, bytes_copied, bytes_skipped, .. } = staged.cost;
    assert_eq!(bytes_downloaded, versions.last_layer(1));
    assert_eq!((mib(bytes_copied), bytes_skipped), (6, 0), "hidden files are part of their layer");
    let region = machine.disk.slot("b").unwrap();
    assert!(verity::holds(&region, &staged.record).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_the_slot_itself_holds_are_not_written_again() {
    let (versions, machine) = (Versions::new().await, Machine::empty());
    machine.stage(&versions.names[0]).await.unwrap();
    let staged = machine.stage(&versions.names[1]).await.unwrap();
    let StagingCost { bytes_downloaded, bytes_copied, bytes_skipped, bytes_written, .. } = staged.cost;
    assert_eq!((bytes_downloaded, bytes_copied), (versions.last_layer(1), 0));
    // Written are the last layer, metadata, hash tree, index and record.
    assert!(mib(bytes_skipped) == 6 && mib(2 * bytes_written) == 2, "{:?}", staged.cost);
    let fresh = versions.fresh().await;
    assert_eq!(staged.record.root_hash, fresh.record.root_hash, "where it came from makes no difference");
    assert_eq!(staged.record.layers, fresh.record.layers);
    let region = machine.disk.slot("b").unwrap();
    assert!(verity::holds(&region, &staged.record).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_damaged_in_its_slot_is_downloaded() {
    for slot in ["a", "b"] {
        let (versions, machine) = (Versions::new().await, Machine::empty());
        machine.stage_into(&versions.names[0], slot, &std::sync::Arc::default()).await.unwrap();
        let file = machine.disk.slot(slot).unwrap().open_rw().unwrap();
        let mut byte = [0];
        file.read_at(3 * MIB as u64, &mut byte).unwrap();
        file.write_at(3 * MIB as u64, &[!byte[0]]).unwrap();
        drop(file);
        let staged = machine.stage(&versions.names[1]).await.unwrap();
        assert!(mib(staged.cost.bytes_downloaded) >= 6, "{slot}: {:?}", staged.cost);
        assert_eq!(staged.record.root_hash, versions.fresh().await.record.root_hash, "{slot}");
        assert!(verity::holds(&machine.disk.slot("b").unwrap(), &staged.record).unwrap(), "{slot}");
    }
}

/// Whoever serves a layer may have its data hold what looks like a section of the next one; whether it was ours is known
/// only from the list.
#[tokio::test(flavor = "multi_thread")]
async fn a_section_that_came_with_a_layers_data_is_not_believed() {
    let (versions, machine) = (Versions::new().await, Machine::empty());
    machine.stage(&versions.names[0]).await.unwrap();
    let region = machine.disk.slot("b").unwrap();
    let held = index::layers(&region).unwrap();
    let slot = region.open_rw().unwrap();
    // It was cut off behind the second layer.
    let ours: Vec<[u8; 32]> =
        held[..2].iter().map(|layer| unhex(&format!("sha256:{}", layer.section_sha256)).unwrap()).collect();
    let (at, list) = section_list::encode(&ours);
    slot.write_at(region.record_at(), &vec![0; 64 << 10]).unwrap();
    slot.write_at(region.record_at() + at, &list).unwrap();
    // And this is what the data of the third one left.
    let config: serde_json::Value = serde_json::from_slice(&versions.images[1].config.bytes).unwrap();
    let digest = unhex(&versions.images[1].layers[2].digest).unwrap();
    let diff_id = unhex(config["rootfs"]["diff_ids"][2].as_str().unwrap()).unwrap();
    let (block, evil) = (held[2].data.first_block, [0xee; BLOCK]);
    let mut entries = EntriesBuilder::default();
    let kind = Kind::File { block, length: BLOCK as u64 };
    entries.put(b"usr/lib/top", &kind, &Attributes { mode: 0o4755, ..Attributes::default() });
    let forged = Draft::new(digest, diff_id, block, 1, entries).unwrap();
    let forged = forged.finish(Sha256::digest(Sha256::digest(evil)).into());
    slot.write_at(u64::from(block) * BLOCK as u64, &evil).unwrap();
    slot.write_at(held[1].section_at - forged.len() as u64, &forged).unwrap();
    drop(slot);

    let staged = machine.stage(&versions.names[1]).await.unwrap();
    assert_eq!(staged.record.root_hash, versions.fresh().await.record.root_hash);
    assert_eq!(staged.cost.bytes_downloaded, versions.last_layer(1), "and ours are");
    assert!(verity::holds(&region, &staged.record).unwrap());
}
