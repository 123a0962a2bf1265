//! An installation on a disk that boots already, cut anywhere: the old system boots until the new one does, and stays behind
//! it.

use std::sync::Arc;

use evenkeel_node_agent::{
    boot::{self, Loader},
    install, slots,
    stage::{Meter, StageRequest, stage},
};
use evenkeel_node_agent_core::{reuse, slot_check::SlotChecks};

use super::{World, cuts::Story, promises::boots};
use crate::recorder::Sectors;

#[tokio::test(flavor = "multi_thread")]
async fn what_booted_before_boots_until_the_new_slot_does() {
    for loader in [Loader::SystemdBoot, Loader::Grub] {
        let world = World::new(loader).await;
        let (file, known, node) = world.old();
        let entries = boot::open(&node.disk).unwrap().entries().unwrap();
        let facts = slots::facts(&node.disk, &entries, &SlotChecks::default()).unwrap();
        let request = StageRequest {
            disk: node.disk.clone(),
            slot: reuse::choose(&facts, None, None).unwrap().name.clone(),
            image: world.references[1].clone(),
            registry: world.machine.options.clone(),
            trust: None,
            cloud_config: None,
            plan_id: None,
        };
        let staged = stage(&request, &Arc::new(Meter::default())).await.unwrap();
        let slot = node.disk.slot(&request.slot).unwrap();
        install::make_bootable_with(&node.disk, &slot, &staged.record, loader).unwrap();
        // Done again, nothing is written.
        let ops = node.recorder.take_log();
        install::make_bootable_with(&node.disk, &slot, &staged.record, loader).unwrap();
        assert!(node.recorder.take_log().is_empty(), "{loader:?}");

        let story = Story { file, before: Sectors::new(), known, ops };
        let (mut failures, mut chosen) = (Vec::new(), Vec::new());
        story.cuts(0..story.ops.len(), 3, |cut| match boots(&story.recorder(&cut), &world.images) {
            Ok((_, entries)) if entries.iter().any(|entry| entry.slot == "a") => {
                chosen.push(entries[0].slot.clone());
            }
            Ok(_) => failures.push(format!("cut at {}: the old system does not boot", cut.at)),
            Err(error) => failures.push(format!("cut at {}: {error}", cut.at)),
        });
        assert!(failures.is_empty(), "{loader:?}: {}", failures.join("\n"));
        assert!(chosen.len() > 40 && chosen.iter().any(|slot| slot == "b"), "{}", chosen.len());
    }
}
