//! Channels: what they list is what is there, nobody else's versions are touched, and image objects follow.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use evenkeel_crds::{
    ManagedOSImage, ManagedOSVersion, ManagedOSVersionChannel,
    condition::ConditionStatus,
    names::{CHANNEL, NO_LONGER_IN_SYNC},
};
use evenkeel_e2e::registry::{self, Compression, Image, Layer, digest_of};
use evenkeel_tests::{
    cosign::{Cosign, Form, Kind},
    fleet::{Fleet, FleetOptions, REPOSITORY},
    list_server::ListServer,
    os_image::OsImage,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_mins(2);
const ROLLOUT_LIMIT: Duration = Duration::from_mins(3);

/// A list in the form of Elemental's channels.
fn list(versions: &[&str]) -> String {
    let entry = |version: &&str| {
        json!({
            "metadata": { "name": version },
            "spec": {
                "version": version, "type": "container", "minVersion": "v0.1",
                "metadata": { "upgradeImage": format!("registry.example/os:{version}"), "unknown": [1] },
                "upgradeContainer": { "envs": [] },
            },
        })
    };
    Value::Array(versions.iter().map(entry).collect()).to_string()
}

async fn apply(fleet: &Fleet, kind: &str, name: &str, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    fleet.cluster.kubectl_with(&arguments, &object.to_string()).await?;
    Ok(())
}

/// All versions: name, `*` for one of a channel, `-` for one that is no longer listed.
async fn versions(fleet: &Fleet) -> Result<Vec<String>> {
    let all = Api::<ManagedOSVersion>::all(fleet.client.clone()).list(&ListParams::default()).await?;
    let marked = |version: &ManagedOSVersion, label: &str, mark: &'static str| {
        if version.labels().contains_key(label) { mark } else { "" }
    };
    let shown = |version: &ManagedOSVersion| {
        let kept = marked(version, CHANNEL, "*");
        format!("{}{kept}{}", version.name_any(), marked(version, NO_LONGER_IN_SYNC, "-"))
    };
    let mut names: Vec<String> = all.items.iter().map(shown).collect();
    names.sort();
    Ok(names)
}

/// Waits until the channel has this reason for being Ready or not, and the versions are these; the condition's message.
async fn until(fleet: &Fleet, reason: &str, expected: &[&str]) -> Result<String> {
    let end = Instant::now() + LIMIT;
    let channels = Api::<ManagedOSVersionChannel>::all(fleet.client.clone());
    loop {
        let channel = channels.get("stable").await?;
        let (found, status) = (versions(fleet).await?, channel.status.unwrap_or_default());
        let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
        let current = status.observed_generation == channel.metadata.generation;
        if let Some(ready) = ready.filter(|ready| ready.reason == reason && current)
            && found == expected
        {
            let fine = matches!(reason, "Synchronized" | "ChannelDisabled");
            assert_eq!(ready.status == ConditionStatus::True, fine, "{ready:?}");
            return Ok(ready.message.clone());
        }
        if Instant::now() > end {
            bail!("not {reason} with {expected:?}, but {ready:?} with {found:?}\n{}", fleet.account());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_what_the_channel_lists_and_those_of_others_are_left_alone() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(0)).await?;
    let server = ListServer::start(&list(&["v1", "v2", "by-hand"])).await?;
    let by_hand = json!({ "version": "mine", "metadata": { "upgradeImage": "registry.example/mine:1" } });
    apply(&fleet, "ManagedOSVersion", "by-hand", &by_hand).await?;
    let channel = |interval: &str, delete: bool| {
        json!({
            "type": "json", "options": { "uri": server.uri }, "pull": { "plainHttp": true }, "syncInterval": interval,
            "deleteNoLongerInSyncVersions": delete, "registry": "mirror.example",
        })
    };
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel("60m", false)).await?;
    let said = until(&fleet, "NamesTaken", &["by-hand", "v1*", "v2*"]).await?;
    assert!(said.contains("by-hand"), "{said}");
    let all = Api::<ManagedOSVersion>::all(fleet.client.clone());
    let first = all.get("v1").await?;
    let image = first.spec.metadata.upgrade_image.as_deref();
    assert_eq!(
        (image, first.spec.min_version.as_deref()),
        (Some("mirror.example/registry.example/os:v1"), Some("v0.1"))
    );
    assert_eq!(all.get("by-hand").await?.spec.version, "mine");

    // A version that somebody deletes comes back; the list is not fetched for it.
    let fetched = server.answered().len();
    all.delete("v2", &DeleteParams::default()).await?;
    until(&fleet, "NamesTaken", &["by-hand", "v1*", "v2*"]).await?;
    assert_eq!(server.answered().len(), fetched);

    server.serve(&list(&["v3"]));
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel("61m", false)).await?;
    until(&fleet, "Synchronized", &["by-hand", "v1*-", "v2*-", "v3*"]).await?;
    let uses = json!({ "managedOSVersionName": "v1", "nodeSelector": { "matchLabels": { "none": "none" } } });
    apply(&fleet, "ManagedOSImage", "os", &uses).await?;
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel("62m", true)).await?;
    let said = until(&fleet, "Synchronized", &["by-hand", "v1*-", "v3*"]).await?;
    assert!(said.contains("v1 (ManagedOSImage os)"), "{said}");

    // Lists that are none change nothing.
    for (body, interval, words) in [("<html>", "63m", "not a JSON array"), ("[]", "64m", "is empty")] {
        server.serve(body);
        apply(&fleet, "ManagedOSVersionChannel", "stable", &channel(interval, true)).await?;
        let said = until(&fleet, "InvalidList", &["by-hand", "v1*-", "v3*"]).await?;
        assert!(said.contains(words), "{said}");
    }
    let metrics = fleet.operators[0].get("/metrics").await?;
    assert!(metrics.contains(r#"evenkeel_channel_failing{channel="stable"} 1"#), "{metrics}");
    assert!(
        metrics.contains(r#"evenkeel_channel_fetched_timestamp_seconds{channel="stable"} "#),
        "{metrics}"
    );
    server.serve(&list(&["v1", "V4!"]));
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel("65m", true)).await?;
    let said = until(&fleet, "InvalidEntries", &["by-hand", "v1*", "v3*"]).await?;
    assert!(said.contains("V4!"), "{said}");

    // Nothing is decided by an operator that was killed: the next one finds the same.
    fleet.operators[0].kill();
    server.serve(&list(&["v1", "v5"]));
    fleet.operators[0].restart()?;
    until(&fleet, "Synchronized", &["by-hand", "v1*", "v5*"]).await?;
    let mut disabled = channel("65m", true);
    disabled["enabled"] = json!(false);
    apply(&fleet, "ManagedOSVersionChannel", "stable", &disabled).await?;
    until(&fleet, "ChannelDisabled", &["by-hand", "v1*", "v5*"]).await?;
    let metrics = fleet.operators[0].get("/metrics").await?;
    assert!(!metrics.contains(r#"channel="stable""#), "{metrics}");
    let reasons: Vec<String> = fleet
        .events("ManagedOSVersionChannel", "stable")
        .await?
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    for reason in
        ["VersionsAdded", "VersionsRetired", "VersionsDeleted", "NamesTaken", "Synchronized", "InvalidList"]
    {
        assert!(reasons.iter().any(|told| told == reason), "{reason} is not among {reasons:?}");
    }
    Ok(())
}

/// An artifact with the list as a file.
async fn push_artifact(fleet: &Fleet, tag: &str, content: &str) -> Result<String> {
    let (file, config) = (content.as_bytes().to_vec(), b"{}".to_vec());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let document = json!({
        "schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.evenkeel.channel",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(&config), "size": 2 },
        "layers": [{
            "mediaType": "application/json", "digest": digest_of(&file), "size": file.len(),
            "annotations": { "org.opencontainers.image.title": "channel.json" },
        }],
    });
    registry::push_document(&fleet.registry, "team/channel", tag, &[file, config], &document).await?;
    Ok(format!("{}/team/channel:{tag}", fleet.registry.address()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_the_registry_counts_once_it_is_signed() -> Result<()> {
    let (fleet, cosign) =
        tokio::try_join!(async { Fleet::start(&FleetOptions::of(0)).await }, Cosign::new())?;
    let key = cosign.key("ours", Kind::P256).await?;
    let artifact = push_artifact(&fleet, "1", &list(&["v1"])).await?;
    let channel = |image: &str| {
        json!({
            "type": "custom", "options": { "image": image }, "pull": { "plainHttp": true },
            "deleteNoLongerInSyncVersions": true,
        })
    };
    let mut signed = channel(&artifact);
    signed["verification"] = json!({ "rules": [{ "keys": [key.pem()?] }] });
    apply(&fleet, "ManagedOSVersionChannel", "stable", &signed).await?;
    let said = until(&fleet, "NotSigned", &[]).await?;
    assert!(said.contains("team/channel@sha256:"), "{said}");
    cosign.sign(&artifact, &key, Form::Bundle).await?;
    // It is asked for again by itself.
    until(&fleet, "Synchronized", &["v1*"]).await?;

    // An image that carries the list at its root, as Elemental's do.
    let tar = |name: &str, content: &str| -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes())?;
        Ok(builder.into_inner()?)
    };
    let layers = vec![
        Layer::from_tar(&tar("bin/busybox", "a program")?, Compression::Gzip)?,
        Layer::from_tar(&tar("channel.json", &list(&["v2"]))?, Compression::Gzip)?,
        Layer::from_tar(&tar("etc/motd", "hello")?, Compression::None)?,
    ];
    let image = registry::push(&fleet.registry, "team/channel-image", "1", &Image::new(layers)).await?;
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel(&image.tagged)).await?;
    // The rules are gone with the apply, and with them the version that is no longer listed.
    until(&fleet, "Synchronized", &["v2*"]).await?;
    let empty = registry::push(
        &fleet.registry,
        "team/empty",
        "1",
        &Image::new(vec![Layer::from_tar(&tar("etc/channel.json", "[]")?, Compression::Gzip)?]),
    )
    .await?;
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel(&empty.tagged)).await?;
    let said = until(&fleet, "InvalidList", &["v2*"]).await?;
    assert!(said.contains("carries no channel.json"), "{said}");
    Ok(())
}

async fn position(fleet: &Fleet) -> Result<(Option<String>, Option<String>, Option<String>)> {
    let image = Api::<ManagedOSImage>::all(fleet.client.clone()).get("os").await?;
    let position = image.status.unwrap_or_default().channel.context("it follows a channel")?;
    assert_eq!(position.since.is_some(), position.version.is_some());
    Ok((position.version, position.available, position.approved_by))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_object_follows_the_tags_of_a_repository_as_far_as_somebody_lets_it() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let second = fleet.publish(&OsImage::good("v2.0")).await?;
    fleet.publish(&OsImage::good("v2.1-rc1")).await?;
    let channel = |interval: &str| {
        json!({
            "type": "registry", "pull": { "plainHttp": true }, "syncInterval": interval,
            "options": { "repository": format!("{}/{REPOSITORY}", fleet.registry.address()), "constraint": ">=2" },
        })
    };
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel("60m")).await?;
    until(&fleet, "Synchronized", &["stable-v2.0*"]).await?;
    let follow = |promotion: &str| json!({ "channel": { "name": "stable", "promotion": promotion }, "pull": { "plainHttp": true } });
    apply(&fleet, "ManagedOSImage", "os", &follow("Approved")).await?;
    fleet.until_event("os", &["VersionAvailable", "stable-v2.0", "kubectl annotate"]).await?;
    fleet.until_event("os", &["WaitsForApproval", "stable-v2.0"]).await?;
    assert_eq!(position(&fleet).await?, (None, Some("stable-v2.0".into()), None));
    let images = Api::<ManagedOSImage>::all(fleet.client.clone());
    let approve = |version: &str| {
        json!({ "metadata": { "annotations": {
            "evenkeel.dev/approved-version": version, "evenkeel.dev/approved-by": "ann",
        } } })
    };
    images.patch("os", &PatchParams::default(), &Patch::Merge(approve("stable-v2.0"))).await?;
    fleet.until_all_run(&second.digest, ROLLOUT_LIMIT).await?;
    assert_eq!(position(&fleet).await?, (Some("stable-v2.0".into()), None, Some("ann".into())));
    fleet.until_event("os", &["VersionPromoted", "approved by ann"]).await?;

    // Somebody changes what is behind the name that was approved: nothing happens. The operator puts it right.
    let all = Api::<ManagedOSVersion>::all(fleet.client.clone());
    let other = json!({ "spec": { "metadata": { "upgradeImage": fleet.installed.tagged } } });
    all.patch("stable-v2.0", &PatchParams::default(), &Patch::Merge(other)).await?;
    let end = Instant::now() + LIMIT;
    while all.get("stable-v2.0").await?.spec.metadata.upgrade_image.as_ref() != Some(&second.tagged) {
        anyhow::ensure!(
            Instant::now() < end,
            "the version stays what somebody made of it\n{}",
            fleet.account()
        );
        sleep(Duration::from_millis(100)).await;
    }
    let image = images.get("os").await?.status.unwrap_or_default();
    assert_eq!(
        (image.resolved_from.as_ref(), image.image.as_ref()),
        (Some(&second.tagged), Some(&second.pinned))
    );

    // A newer one waits; then nobody has to approve any more.
    let third = fleet.publish(&OsImage::good("v2.2")).await?;
    apply(&fleet, "ManagedOSVersionChannel", "stable", &channel("61m")).await?;
    fleet.until_event("os", &["VersionAvailable", "stable-v2.2"]).await?;
    assert_eq!(position(&fleet).await?.0.as_deref(), Some("stable-v2.0"));
    apply(&fleet, "ManagedOSImage", "os", &follow("Automatic")).await?;
    fleet.until_all_run(&third.digest, ROLLOUT_LIMIT).await?;
    assert_eq!(position(&fleet).await?, (Some("stable-v2.2".into()), None, None));
    Ok(())
}
