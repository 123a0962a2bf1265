//! A power cut costs no finished layer that was expensive to have.

use std::{fs::File, path::Path, sync::Arc};

use evenkeel_node_agent::{
    disk::{BlockDevice, Disk, Sizes},
    install,
};

use super::cuts::Story;
use crate::{
    image::{Recipe, noise, tar},
    machine::Machine,
    odd_server::{Habits, OddServer},
    recorder::{Op, Recorder, Sectors},
};

const MIB: usize = 1 << 20;
/// More than what is written between two flushes.
const EXPENSIVE: usize = 33 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_at_the_end_of_a_large_layer_is_not_downloaded_again() {
    let mut machine = Machine::empty();
    let path = machine.folder.path().join("large.img");
    let sizes = Sizes { disk: Some(1000 << 20), slot: Some(48 << 20), slots: 2 };
    install::create_disk(&path, sizes).unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    let on = |sectors: Sectors| {
        let recorder = Arc::new(Recorder::<()>::new(file.clone(), sectors));
        let device: Arc<dyn BlockDevice> = recorder.clone();
        (recorder, Disk::on(&device, Path::new("memory")).unwrap())
    };
    let mut recipe = Recipe::default();
    recipe.layers.insert(0, tar(&[("usr/lib/large", &noise(EXPENSIVE, 5))]));
    let image = recipe.build();
    let server = OddServer::start(&image, Habits::default()).await;
    let (recorder, disk) = on(Sectors::new());
    machine.disk = disk;
    machine.stage(&server.reference()).await.unwrap();
    let story = Story { file: file.clone(), before: Sectors::new(), known: (), ops: recorder.take_log() };
    // The first flush behind so many bytes.
    let mut sectors = 0;
    let flush = story.ops.iter().position(|op| {
        sectors += if let Op::Write(written) = op { written.len() } else { 0 };
        matches!(op, Op::Flush) && sectors * 512 > EXPENSIVE
    });
    let flush = flush.unwrap();
    let whole: usize = image.layers.iter().map(|layer| layer.bytes.len()).sum();
    let large = image.layers[0].bytes.len();
    for (story, left) in [(story.without(flush), whole), (story, whole - large)] {
        // Of what was not flushed there is nothing.
        let mut least = Sectors::new();
        story.cuts(flush..flush + 1, 0, |cut| {
            if least.is_empty() || cut.sectors.len() < least.len() {
                least = cut.sectors;
            }
        });
        machine.disk = on(least).1;
        let staged = machine.stage(&server.reference()).await.unwrap();
        assert_eq!(staged.cost.bytes_downloaded, i64::try_from(left).unwrap());
    }
}
