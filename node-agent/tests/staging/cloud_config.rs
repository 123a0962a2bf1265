//! The cluster's cloud-config, which is kept in a slot with its image.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use evenkeel_node_agent::{
    cloud_config, pins,
    stage::{Meter, StageRequest, Staged, stage},
};
use evenkeel_node_agent_core::{
    cloud_config::Stage, live_config::LiveConfig, machine::RunningSlot, slot_record::SlotRecord,
};

use crate::{
    image::{Recipe, tar},
    machine::Machine,
    registry::Registry,
};

const ONE: &str = r#"{"stages":{"boot":[{"hostname":"one"}]}}"#;
const OTHER: &str = r#"{"stages":{"boot":[{"hostname":"other"}]}}"#;

async fn staged(machine: &Machine, image: &str, document: Option<&str>) -> Result<Staged, String> {
    let request = StageRequest {
        disk: machine.disk.clone(),
        slot: "b".to_owned(),
        image: image.to_owned(),
        registry: machine.options.clone(),
        trust: None,
        cloud_config: document.map(str::to_owned),
        plan_id: None,
    };
    stage(&request, &Arc::new(Meter::default())).await.map_err(|error| error.plan_error().reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_one_costs_a_look_at_the_slot_and_no_download() {
    let (machine, registry) = (Machine::with_old_system().await, Registry::start());
    let image = Recipe::with(tar(&[("etc/new", b"of this image")])).build();
    registry.push(&image, "os:2").await;
    let image = registry.reference(&format!("os@{}", image.manifest.digest));
    let plain = staged(&machine, &image, None).await.unwrap().record;
    assert_eq!(plain.release(), plain.digest);
    drop(registry);
    let one = staged(&machine, &image, Some(ONE)).await.unwrap().record;
    let other = staged(&machine, &image, Some(OTHER)).await.unwrap().record;
    let again = staged(&machine, &image, Some(OTHER)).await.unwrap().record;
    assert_eq!(other, again, "what is there is left alone");
    assert_eq!((&one.root_hash, &one.digest), (&plain.root_hash, &plain.digest));
    let releases = [&plain, &one, &other].map(SlotRecord::release);
    assert!(releases[0] != releases[1] && releases[1] != releases[2], "{releases:?}");
    assert_eq!(machine.slot("b").cloud_config.as_deref(), Some(OTHER));
    assert!(!machine.slot("b").bootable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_slot_keeps_the_one_that_it_has() {
    let (machine, registry) = (Machine::with_old_system().await, Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:old").await;
    pins::pin(&machine.disk, "b").unwrap();
    assert_eq!(staged(&machine, &image, Some(ONE)).await.unwrap_err(), "SlotPinned");
    let b = machine.slot("b");
    assert!(b.bootable && b.cloud_config.is_none(), "{b:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_applied_where_its_slot_runs_and_nowhere_else() {
    let (machine, registry) = (Machine::with_old_system().await, Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:2").await;
    let record = staged(&machine, &image, Some(ONE)).await.unwrap().record;
    let running = |name: &str, digest: &str| RunningSlot {
        name: name.to_owned(),
        digest: digest.to_owned(),
        boot_id: String::new(),
    };
    let names = |name: &str, digest: &str| {
        let live = LiveConfig::default();
        let setting = cloud_config::of_the_cluster(&machine.disk, &running(name, digest), &live);
        let config = setting.map(|setting| cloud_config::parsed(&setting).unwrap()).unwrap_or_default();
        config.steps(Stage::Boot).iter().map(|step| step.hostname.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names("b", &record.release()), ["one"]);
    // A trial is kept only if the host says that it has applied it, in this boot and of this release.
    let (root, configured) = (machine.folder.path(), record.release());
    fs::create_dir_all(root.join("proc/1")).unwrap();
    symlink(root, root.join("proc/1/root")).unwrap();
    let is_applied = |release: &str| cloud_config::is_applied(&root.join("proc"), release);
    assert!(!is_applied(&configured) && is_applied("sha256:0"));
    cloud_config::note_applied(root, &format!("{}+0", record.digest)).unwrap();
    assert!(!is_applied(&configured), "that was another one");
    cloud_config::note_applied(root, &configured).unwrap();
    assert!(is_applied(&configured));
    // The slot was written anew since it was booted, or holds nothing, or is not there.
    assert_eq!(names("b", &record.digest), [""; 0]);
    assert_eq!(names("a", &machine.slot("a").digest.unwrap()), [""; 0]);
    assert_eq!(names("z", &record.release()), [""; 0]);
}
