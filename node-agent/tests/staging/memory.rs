//! A disk in memory under everything that staging and activation do.

use std::{fs::File, path::Path, sync::Arc};

use evenkeel_node_agent::{
    disk::{BlockDevice, Disk},
    install,
    slots::SlotState,
};

use crate::{
    image::Recipe,
    machine::Machine,
    recorder::{Recorder, Sectors},
    registry::Registry,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_memory_is_staged_and_made_bootable_as_one_in_a_file() {
    let (registry, in_file) = (Registry::start(), Machine::empty());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    let mut machine = Machine::empty();
    let empty = Arc::new(File::open(machine.disk.path()).unwrap());
    let memory: Arc<dyn BlockDevice> = Arc::new(Recorder::<()>::new(empty, Sectors::new()));
    machine.disk = Disk::on(&memory, Path::new("memory")).unwrap();
    let expected = in_file.stage(&image).await.unwrap();
    let staged = machine.stage(&image).await.unwrap();
    assert_eq!(staged.record.root_hash, expected.record.root_hash);
    install::make_bootable(&machine.disk, &machine.disk.slot("b").unwrap(), &staged.record).unwrap();
    let b = machine.slot("b");
    assert!(b.state == SlotState::Complete && b.default, "{b:?}");
}
