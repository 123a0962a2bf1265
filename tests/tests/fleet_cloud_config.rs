//! A cloud-config from the cluster, with the real operator, agent and guard: it is rolled out as an image is, with a reboot and
//! without.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use evenkeel_crds::node_plan::{Phase, RollbackCause};
use evenkeel_node_agent::disk::Disk;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    machine::Event,
    os_image::OsImage,
    watch::World,
};
use serde_json::{Value, json};

const ROLLOUT: Duration = Duration::from_mins(4);

/// What is rolled out, as the image object's status names it, once it is something else than before.
async fn released(fleet: &Fleet, before: &str) -> Result<String> {
    let named = |world: &World| {
        let status = world.images.get("os").and_then(|image| image.status.as_ref());
        status.and_then(|status| status.rollout.as_ref()).map(|rollout| rollout.digest.clone())
    };
    let is_new = |world: &World| named(world).is_some_and(|digest| digest != before);
    let world = fleet.until("something else is rolled out", ROLLOUT, is_new).await?;
    named(&world).context("nothing is rolled out")
}

/// The document in the slot that runs.
fn document(fleet: &Fleet, node: &str) -> Result<Option<String>> {
    let machine = fleet.machine(node)?;
    let slot = machine.boots().last().context("it was never started")?.slot.clone();
    Ok(Disk::open(&machine.disk)?.slot(&slot)?.read_record()?.cloud_config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_every_node_with_a_reboot_and_without_another_image() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let want = async |config: Value| {
        let spec = json!({ "cloudConfig": config, "rollout": { "maxUnavailable": 1 } });
        fleet.want("os", &second.tagged, spec).await
    };
    let named = |name: &str| json!({ "stages": { "boot": [{ "name": "a name", "hostname": name }] } });
    want(named("one")).await?;
    let one = released(&fleet, "").await?;
    assert!(one.starts_with(&format!("{}+", second.digest)), "{one}");
    fleet.until_all_run(&one, ROLLOUT).await?;
    for node in ["node-1", "node-2"] {
        let said = document(&fleet, node)?.context("the slot has no document")?;
        let content = said.strip_prefix("#cloud-config\n").context("it has no header")?;
        assert_eq!(serde_json::from_str::<Value>(content)?, named("one"));
        assert_eq!(fleet.machine(node)?.boots().len(), 2);
    }

    want(named("other")).await?;
    let other = released(&fleet, &one).await?;
    let world = fleet.until_all_run(&other, ROLLOUT).await?;
    assert_eq!(world.worst, 1, "one node after the other");
    for node in ["node-1", "node-2"] {
        let boots = fleet.machine(node)?.boots();
        let [.., before, now] = &boots[..] else { panic!("{boots:?}") };
        assert_ne!(
            before.slot, now.slot,
            "it is on trial as an image is: the way back leads to the one before"
        );
        let staging = world.status(node).and_then(|status| status.staging.clone()).context("no account")?;
        assert_eq!(staging.bytes_downloaded, 0, "the image is there: {staging:?}");
    }

    // Said once more in another order, it is the same.
    let again = r#"{"stages":{"boot":[{"hostname":"other","name":"a name"}]}}"#;
    want(serde_json::from_str(again)?).await?;
    // Nobody gets what cannot be understood.
    want(json!({ "stages": { "boot": [{ "hostnam": "typo" }] } })).await?;
    let stalled = |world: &World| {
        let stalled = world.condition("os", "Stalled");
        stalled.is_some_and(|(_, reason, message)| reason == "InvalidSpec" && message.contains("hostnam"))
    };
    fleet.until("the word that is not known is named", ROLLOUT, stalled).await?;

    want(Value::Null).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    for node in ["node-1", "node-2"] {
        assert_eq!(document(&fleet, node)?, None);
        assert_eq!(fleet.machine(node)?.boots().len(), 4);
        assert_eq!(fleet.watch.world().phase(node), Phase::Committed);
    }
    assert!(fleet.cordoned().await?.is_empty());
    Ok(())
}

/// A file that the cluster's document is about, as a machine has it.
fn motd(fleet: &Fleet, node: &str) -> Result<String> {
    let root = fleet.machine(node)?.root();
    Ok(fs::read_to_string(root.join("etc/motd")).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_every_node_without_a_reboot_where_that_is_declared() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let want = async |config: Value| {
        let reboot = json!({ "onCloudConfigChange": false });
        let spec = json!({ "cloudConfig": config, "rollout": { "maxUnavailable": 1 }, "reboot": reboot });
        fleet.want("os", &second.tagged, spec).await
    };
    let says = |word: &str| json!({ "stages": { "boot": [{ "files": [{ "path": "/etc/motd", "content": word }] }] } });
    let nodes = ["node-1", "node-2"];
    // Another image needs a reboot, whatever else is wanted.
    want(says("one")).await?;
    let one = released(&fleet, "").await?;
    fleet.until_all_run(&one, ROLLOUT).await?;
    let boots = |node: &str| anyhow::Ok(fleet.machine(node)?.boots().len());
    assert_eq!((boots("node-1")?, boots("node-2")?), (2, 2));

    fleet.watch.forget();
    want(says("two")).await?;
    let two = released(&fleet, &one).await?;
    let world = fleet.until_all_run(&two, ROLLOUT).await?;
    assert_eq!(world.worst, 0, "nobody was out of service");
    for node in nodes {
        assert_eq!((boots(node)?, motd(&fleet, node)?), (2, "two".to_owned()));
        assert!(world.status(node).is_some_and(|status| status.live && status.staging.is_none()));
    }

    // It outlives a boot, although the slot came with another one.
    fleet.machine("node-1")?.happen(Event::PowerCut);
    let back = |world: &World| {
        let machine = fleet.machine("node-1").ok();
        let boot = machine.and_then(|machine| machine.boots().last().cloned());
        let booted = world.status("node-1").and_then(|status| status.booted.as_ref());
        booted.zip(boot).is_some_and(|(booted, boot)| booted.boot_id == boot.boot_id && booted.digest == two)
    };
    fleet
        .until("it is there again with what was kept", ROLLOUT, |world| {
            back(world) && boots("node-1").is_ok_and(|boots| boots == 3)
        })
        .await?;

    // What does not work is taken back where it was tried first, and nobody else gets it.
    let mut bad = says("bad");
    bad["stages"]["network"] = json!([{ "name": "impossible", "commands": ["false"] }]);
    want(bad).await?;
    let stopped = |world: &World| {
        let stalled = world.condition("os", "Stalled");
        stalled.is_some_and(|(_, reason, _)| reason == "RolloutStopped")
            && nodes.into_iter().any(|node| world.phase(node) == Phase::RolledBack)
    };
    let world = fleet.until("the rollout stops", ROLLOUT, stopped).await?;
    let tried: Vec<&str> = nodes.into_iter().filter(|node| world.phase(node) == Phase::RolledBack).collect();
    let [tried] = tried[..] else { panic!("{tried:?} tried it") };
    let cause = world.status(tried).and_then(|status| status.rolled_back.clone()).context("no cause")?;
    assert_eq!(cause.cause, RollbackCause::HostCheck);
    assert!(cause.message.contains("impossible"), "{}", cause.message);
    for node in nodes {
        let booted =
            world.status(node).and_then(|status| status.booted.clone()).context("it says nothing")?;
        assert_eq!((booted.digest, motd(&fleet, node)?), (two.clone(), "two".to_owned()));
    }

    // Without one, and still without a reboot.
    want(Value::Null).await?;
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    assert_eq!((boots("node-1")?, boots("node-2")?), (3, 2));
    assert!(fleet.cordoned().await?.is_empty());
    Ok(())
}
