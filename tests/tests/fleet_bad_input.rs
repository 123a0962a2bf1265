//! Input that cannot become a running system: each kind gives a condition and an event that name the thing and what can be
//! done, and the node serves as before.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_crds::{NodePlan, node_plan::Phase};
use evenkeel_e2e::{process::Port, registry::Pushed, wait};
use evenkeel_node_agent::disk::Disk;
use evenkeel_node_agent_core::layout::Role;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    watch::World,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(3);

/// One kind of bad input.
struct Case {
    name: &'static str,
    node: &'static str,
    image: String,
    /// Reason of the condition `Ready` of the `ManagedOSImage`, or of the node's plan.
    reason: &'static str,
    /// Words that the messages must have: the thing, and the remedy.
    words: Vec<String>,
    /// Whether it is the agent that finds it.
    on_plan: bool,
}

fn case(name: &'static str, node: &'static str, image: &str, reason: &'static str, words: &[&str]) -> Case {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Case { name, node, image: image.to_owned(), reason, words, on_plan: true }
}

/// The file of a blob in the registry's storage.
fn blob(fleet: &Fleet, digest: &str) -> Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").context("a digest begins with its algorithm")?;
    let blobs = fleet.registry.storage().join("docker/registry/v2/blobs/sha256");
    Ok(blobs.join(&hex[..2]).join(hex).join("data"))
}

/// The file of an image's last layer.
fn last_layer(fleet: &Fleet, image: &Pushed) -> Result<(String, PathBuf)> {
    let manifest: Value = serde_json::from_slice(&fs::read(blob(fleet, &image.digest)?)?)?;
    let layers = manifest["layers"].as_array().context("a manifest has layers")?;
    let digest = layers.last().and_then(|layer| layer["digest"].as_str()).context("a layer has a digest")?;
    Ok((digest.to_owned(), blob(fleet, digest)?))
}

/// Fills the boot partition but for a little.
fn fill_esp(disk: &Path, folder: &Path) -> Result<()> {
    let offset = Disk::open(disk)?.partition(Role::Esp)?.offset;
    let filler = folder.join("filler");
    let file = fs::File::create(&filler)?;
    file.set_len(500 << 20)?;
    let status = Command::new("mcopy")
        .arg("-i")
        .arg(format!("{}@@{offset}", disk.display()))
        .arg(&filler)
        .arg("::/somebody-elses")
        .env("MTOOLS_SKIP_CHECK", "1")
        .status()?;
    ensure!(status.success(), "mcopy failed");
    Ok(fs::remove_file(filler)?)
}

/// Cases that the operator finds: no digest, so that no node hears of it.
fn unresolved(fleet: &Fleet, nobody: u16) -> Vec<Case> {
    let address = fleet.registry.address();
    let operator = |case: Case| Case { on_plan: false, ..case };
    let (away, unknown) =
        (format!("127.0.0.1:{nobody}/model/os:1"), format!("{address}/model/os:no-such-tag"));
    vec![
        operator(case(
            "unreachable",
            "node-1",
            &away,
            "RegistryUnreachable",
            &[&format!("127.0.0.1:{nobody}")],
        )),
        operator(case("unknown-tag", "node-2", &unknown, "ImageNotFound", &["no-such-tag", "model/os"])),
    ]
}

/// Cases that the agent finds when it stages.
async fn unusable(fleet: &Fleet) -> Result<Vec<Case>> {
    let good = |version: &str| OsImage::good(version);
    let no_kernel = fleet.publish(&OsImage { kernel: None, ..good("no-kernel") }).await?;
    let too_large = fleet.publish(&OsImage { filler: 80 << 20, ..good("too-large") }).await?;
    let foreign = fleet.publish(&OsImage { architecture: "arm64", ..good("foreign") }).await?;
    let changed = fleet.publish(&good("changed")).await?;
    let (changed_layer, path) = last_layer(fleet, &changed)?;
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes)?;
    let cut = fleet.publish(&good("cut")).await?;
    let (cut_layer, path) = last_layer(fleet, &cut)?;
    let length = fs::metadata(&path)?.len();
    fs::File::options().write(true).open(&path)?.set_len(length / 2)?;
    let full = fleet.publish(&OsImage { initrd: 16 << 20, ..good("full-esp") }).await?;
    fill_esp(&fleet.machine("node-8")?.disk, &fleet.registry.storage())?;
    Ok(vec![
        case("no-kernel", "node-3", &no_kernel.tagged, "NoKernel", &["/usr/lib/modules", "install a kernel"]),
        case("too-large", "node-4", &too_large.tagged, "ImageTooLarge", &["slot"]),
        case("foreign", "node-5", &foreign.tagged, "WrongArchitecture", &["arm64", "amd64"]),
        case("changed", "node-6", &changed.tagged, "DigestMismatch", &[&changed_layer]),
        case("cut", "node-7", &cut.tagged, "TruncatedLayer", &[&cut_layer]),
        case("full-esp", "node-8", &full.tagged, "EspFull", &["boot partition", "free", "remove"]),
    ])
}

fn has_words(text: &str, words: &[String], name: &str) {
    for word in words {
        assert!(text.contains(word.as_str()), "{name}: `{word}` is not in: {text}");
    }
}

async fn want(fleet: &Fleet, case: &Case) -> Result<()> {
    let selector = json!({ "nodeSelector": { "matchLabels": { "node": case.node } } });
    fleet.want(case.name, &case.image, selector).await
}

async fn judge(fleet: &Fleet, case: &Case) -> Result<()> {
    let Case { name, node, reason, words, .. } = case;
    if case.on_plan {
        let world = fleet
            .until(&format!("{name}: {reason} on the plan"), LIMIT, |world| {
                let error = world.status(node).and_then(|status| status.error.as_ref());
                error.is_some_and(|error| error.reason == *reason)
            })
            .await?;
        let status = world.status(node).context("the plan has a status")?;
        let error = status.error.as_ref().context("the plan has an error")?;
        has_words(&error.message, words, name);
        let told = status
            .conditions
            .iter()
            .any(|condition| condition.reason == *reason && condition.message == error.message);
        assert!(told, "{name}: no condition of the plan says so: {:?}", status.conditions);
        if !error.retryable {
            assert_eq!(world.phase(node), Phase::Failed, "{name}");
            let stopped = format!("{name}: the image object is stalled");
            let stalled = |world: &evenkeel_tests::watch::World| {
                world.condition(name, "Stalled").is_some_and(|(status, ..)| status == "True")
            };
            let world = fleet.until(&stopped, LIMIT, stalled).await?;
            let (.., message) = world.condition(name, "Stalled").context("a condition that was just seen")?;
            has_words(&message, words, name);
        }
        // A retry that goes on is in the summary, which names the node.
        let summary = format!("{name}: the summary says so");
        fleet
            .until(&summary, LIMIT, |world| words.iter().all(|word| world.summary(name).contains(word)))
            .await?;
    } else {
        let world = fleet
            .until(&format!("{name}: {reason} on the image object"), LIMIT, |world| {
                world.condition(name, "Ready").is_some_and(|(_, seen, _)| seen == *reason)
            })
            .await?;
        let (status, _, message) =
            world.condition(name, "Ready").context("a condition that was just seen")?;
        assert_eq!(status, "False", "{name}");
        has_words(&message, words, name);
        assert!(
            world.plans.get(*node).is_none_or(|plan| plan.spec.image.is_none()),
            "{name}: a node heard of it"
        );
    }
    told_by_event(fleet, case).await?;
    unharmed(fleet, case).await
}

async fn told_by_event(fleet: &Fleet, case: &Case) -> Result<()> {
    let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
    fleet.until_event(case.name, &words).await
}

/// The node runs what it ran, serves, and has no other slot that boots or counts as complete.
async fn unharmed(fleet: &Fleet, case: &Case) -> Result<()> {
    let machine = fleet.machine(case.node)?;
    assert_eq!(machine.boots().len(), 1, "{}", case.name);
    assert!(fleet.watch.world().serves(case.node), "{}", case.name);
    let slots = machine.slots().await?;
    let [a, b] = &slots[..2] else { panic!("{slots:?}") };
    assert!(a["default"] == true && a["state"] == "complete", "{}: {slots:?}", case.name);
    assert!(b["bootable"] == false && b["state"] != "complete", "{}: {slots:?}", case.name);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_bad_input_is_named_and_harms_no_node() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(8)).await?;
    // A port that nobody listens on, for as long as it is held.
    let nobody = Port::free()?;
    let mut cases = unresolved(&fleet, nobody.number());
    cases.extend(unusable(&fleet).await?);
    for case in &cases {
        want(&fleet, case).await?;
    }
    for case in &cases {
        judge(&fleet, case).await?;
    }
    // The nodes are none the worse: a good image goes through on one that had a bad one.
    let second = fleet.publish(&OsImage::good("2")).await?;
    let repaired = Case { image: second.tagged.clone(), ..case("no-kernel", "node-3", "", "", &[]) };
    want(&fleet, &repaired).await?;
    fleet.until("node-3 runs a good image", LIMIT, |world| world.runs("node-3", &second.digest)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_named_and_the_right_one_goes_through() -> Result<()> {
    let credentials = Some(("robot".to_owned(), "right".to_owned()));
    let fleet = Fleet::start(&FleetOptions { credentials, ..FleetOptions::of(1) }).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.set_password("wrong")?;
    fleet.want("os", &second.tagged, json!({})).await?;
    let world = fleet
        .until("the password is refused", LIMIT, |world| {
            world.condition("os", "Ready").is_some_and(|(_, reason, _)| reason == "Unauthorized")
        })
        .await?;
    let (.., message) = world.condition("os", "Ready").context("a condition that was just seen")?;
    assert!(message.contains(&fleet.registry.address()), "{message}");
    let words = vec![fleet.registry.address()];
    let image = second.tagged.clone();
    let case = Case { name: "os", node: "node-1", image, reason: "Unauthorized", words, on_plan: false };
    told_by_event(&fleet, &case).await?;
    unharmed(&fleet, &case).await?;
    fleet.set_password("right")?;
    fleet.until_all_run(&second.digest, LIMIT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_when_a_node_stages_is_named_and_found_again() -> Result<()> {
    let mut fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let pause = json!({ "rollout": { "pauses": [{ "owner": "test" }] } });
    fleet.want("os", &second.tagged, pause).await?;
    let resolved = |world: &evenkeel_tests::watch::World| {
        let image = world.images.get("os").and_then(|image| image.status.as_ref());
        image.is_some_and(|status| status.image.as_deref() == Some(second.pinned.as_str()))
    };
    fleet.until("the tag is resolved", LIMIT, resolved).await?;
    fleet.registry.kill();
    fleet.want("os", &second.tagged, json!({})).await?;
    let case = case("os", "node-1", &second.tagged, "RegistryUnreachable", &[&fleet.registry.address()]);
    judge(&fleet, &case).await?;
    assert_eq!(
        fleet.watch.world().phase("node-1"),
        Phase::Staging,
        "a registry that is away is no reason to give up"
    );
    fleet.registry.restart().await?;
    fleet.until_all_run(&second.digest, LIMIT).await?;
    Ok(())
}

/// A node on trial is kept whatever is wrong elsewhere: without that its guard would take it back, and blame the image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_trial_is_kept_although_the_spec_or_another_plan_cannot_be_read() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(2)).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let soak = |seconds: u32| json!({ "rollout": { "soakSeconds": seconds } });
    fleet.want("os", &second.tagged, soak(15)).await?;
    fleet.until("node-1 is on trial", LIMIT, |world| world.phase("node-1") == Phase::Trial).await?;
    let windows = json!([{ "cron": "0 25 * * *", "durationSeconds": 60 }]);
    let wrong = json!({ "rollout": { "soakSeconds": 15, "windows": windows } });
    fleet.want("os", &second.tagged, wrong).await?;
    let stuck = |world: &World, reason: &str| {
        world.condition("os", "Stalled").is_some_and(|(status, said, _)| status == "True" && said == reason)
    };
    let kept = |world: &World| {
        stuck(world, "InvalidSpec") && world.runs("node-1", &second.digest) && world.serves("node-1")
    };
    fleet.until("node-1 is kept", LIMIT, kept).await?;
    assert_eq!(fleet.machine("node-2")?.boots().len(), 1, "nothing is started");
    fleet.want("os", &second.tagged, soak(0)).await?;
    fleet.until_all_run(&second.digest, LIMIT).await?;

    let third = fleet.publish(&OsImage::good("3")).await?;
    fleet.want("os", &third.tagged, soak(15)).await?;
    fleet.until("node-1 is on trial", LIMIT, |world| world.phase("node-1") == Phase::Trial).await?;
    // The API server takes an offset that no clock on Earth has; from then on a watch of all plans shows nothing.
    let patch = Patch::Merge(json!({ "spec": { "orderedAt": "2026-01-01T00:00:00+99:99" } }));
    let plans: Api<DynamicObject> = Api::all_with(fleet.client.clone(), &ApiResource::erase::<NodePlan>(&()));
    plans.patch("node-2", &PatchParams::default(), &patch).await?;
    wait::until(LIMIT, async || {
        let plan = plans.get("node-1").await?;
        ensure!(plan.data["status"]["phase"] == "Committed", "it is not kept: {}", fleet.account());
        Ok(())
    })
    .await?;
    let told = |world: &World| stuck(world, "PlanUnreadable") && world.serves("node-1");
    let world = fleet.until("node-1 serves, and the plan is named", LIMIT, told).await?;
    assert!(world.condition("os", "Stalled").unwrap().2.contains("node-2"));
    assert!(world.serves("node-2") && fleet.machine("node-2")?.boots().len() == 2, "node-2 was touched");
    let finished = world.images["os"].status.as_ref().and_then(|status| status.rollout.clone()?.finished_at);
    assert!(finished.is_none(), "a node is left");
    plans.delete("node-2", &DeleteParams::default()).await?;
    fleet.until_all_run(&third.digest, LIMIT).await?;
    Ok(())
}
