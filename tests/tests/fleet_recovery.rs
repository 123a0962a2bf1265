//! The image for recovery slots, with the real operator and agent: written last, and boots when no other slot does.

use std::time::Duration;

use anyhow::Result;
use evenkeel_crds::NodePlan;
use evenkeel_node_agent::disk::Disk;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    loader,
    os_image::OsImage,
    watch::World,
};
use kube::{Api, api::DeleteParams};
use serde_json::json;

const ROLLOUT: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_slots_follow_once_the_image_is_kept_and_nobody_reboots_for_them() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let rescue = fleet.publish(&OsImage::good("rescue")).await?;
    let spec = json!({ "recoveryImage": rescue.pinned });
    fleet.want("os", &second.tagged, spec).await?;
    let holds = |world: &World, node: &str| {
        let recovery = world.status(node).and_then(|status| status.recovery.as_ref());
        recovery.is_some_and(|recovery| recovery.digest.as_deref() == Some(rescue.digest.as_str()))
    };
    let early = |world: &World| {
        // Nothing is written there before the node keeps the image.
        ["node-1", "node-2"].iter().all(|node| !holds(world, node) || world.runs(node, &second.digest))
    };
    let world = fleet
        .until("both recovery slots hold it", ROLLOUT, |world| {
            assert!(early(world), "a recovery slot was written before the image was kept");
            holds(world, "node-1") && holds(world, "node-2")
        })
        .await?;
    assert!(world.runs("node-1", &second.digest) && world.runs("node-2", &second.digest));
    for node in ["node-1", "node-2"] {
        let machine = fleet.machine(node)?;
        let record = Disk::open(&machine.disk)?.slot("recovery")?.read_record()?;
        assert_eq!((record.digest.as_str(), record.version.as_str()), (rescue.digest.as_str(), "rescue"));
        let entries = loader::entry_files(&machine.disk)?;
        assert!(entries.iter().any(|name| name.contains("recovery")), "{entries:?}");
        assert_eq!(machine.boots().len(), 2, "{node}: one boot when it was installed, and one for version 2");
    }

    // Nodes whose plans were deleted have no order left, and follow all the same.
    let other = fleet.publish(&OsImage::good("rescue-2")).await?;
    let plans: Api<NodePlan> = Api::all(fleet.client.clone());
    for node in ["node-1", "node-2"] {
        plans.delete(node, &DeleteParams::default()).await?;
    }
    fleet.want("os", &second.tagged, json!({ "recoveryImage": other.pinned })).await?;
    fleet
        .until("both follow", ROLLOUT, |world| {
            ["node-1", "node-2"].iter().all(|node| {
                let recovery = world.status(node).and_then(|status| status.recovery.as_ref());
                recovery.is_some_and(|recovery| recovery.digest.as_deref() == Some(other.digest.as_str()))
            })
        })
        .await?;

    // One that is not there is told in the line, and does no harm.
    let nowhere = format!("{}@sha256:{:064x}", second.tagged.rsplit_once(':').unwrap().0, 7);
    fleet.want("os", &second.tagged, json!({ "recoveryImage": nowhere })).await?;
    let told = |world: &World| world.summary("os").contains("recovery slots: 2 cannot be (node-1: ");
    let world = fleet.until("it is told why", ROLLOUT, told).await?;
    assert!(world.condition("os", "Ready").is_some_and(|(status, ..)| status == "True"));
    assert!(world.runs("node-1", &second.digest));
    assert_eq!(fleet.machine("node-1")?.boots().len(), 2);
    Ok(())
}
