//! Who must have signed, in a fleet: no node hears of an image that they did not sign.

use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_tests::{
    cosign::{Cosign, Form, Key, Kind},
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    watch::World,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(3);

fn signed_by(key: &Key) -> Result<Value> {
    Ok(json!({ "verification": { "rules": [{ "keys": [key.pem()?] }] } }))
}

fn resolved(world: &World, image: &str) -> bool {
    let status = world.images.get("os").and_then(|image| image.status.as_ref());
    status.is_some_and(|status| status.image.as_deref() == Some(image))
}

async fn until_refused(fleet: &Fleet, reason: &str, words: &[&str]) -> Result<World> {
    let says = |world: &World| world.condition("os", "Ready").is_some_and(|(_, seen, _)| seen == reason);
    let world = fleet.until(&format!("the image object says {reason}"), LIMIT, says).await?;
    let (status, _, message) = world.condition("os", "Ready").context("a condition that was just seen")?;
    assert_eq!(status, "False");
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
    fleet.until_event("os", &[&[reason][..], words].concat()).await?;
    Ok(world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_out_once_it_is_signed() -> Result<()> {
    let (fleet, cosign) =
        tokio::try_join!(async { Fleet::start(&FleetOptions::of(1)).await }, Cosign::new())?;
    let (ours, other) = tokio::try_join!(cosign.key("ours", Kind::P256), cosign.key("other", Kind::P256))?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    fleet.want("os", &second.tagged, signed_by(&ours)?).await?;
    let world = until_refused(&fleet, "NotSigned", &[&second.pinned, "cosign sign"]).await?;
    let heard = |world: &World| world.plans.get("node-1").is_some_and(|plan| plan.spec.image.is_some());
    assert!(!heard(&world), "a node heard of it");
    cosign.sign(&second.pinned, &other, Form::Bundle).await?;
    let world = until_refused(&fleet, "WrongSignature", &["none of the keys"]).await?;
    assert!(!heard(&world), "a node heard of it");
    cosign.sign(&second.pinned, &ours, Form::Bundle).await?;
    fleet.until_all_run(&second.digest, LIMIT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_must_have_signed_changes_before_a_node_has_started() -> Result<()> {
    let (fleet, cosign) =
        tokio::try_join!(async { Fleet::start(&FleetOptions::of(1)).await }, Cosign::new())?;
    let key = cosign.key("ours", Kind::P256).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    let pause = json!({ "rollout": { "pauses": [{ "owner": "test" }] } });
    fleet.want("os", &second.tagged, pause.clone()).await?;
    fleet.until("the tag is resolved", LIMIT, |world| resolved(world, &second.pinned)).await?;
    let mut more = signed_by(&key)?;
    more["rollout"] = pause["rollout"].clone();
    fleet.want("os", &second.tagged, more).await?;
    until_refused(&fleet, "NotSigned", &[&second.pinned]).await?;
    // Only the pause goes: what was resolved before is not let through.
    fleet.want("os", &second.tagged, signed_by(&key)?).await?;
    let world = until_refused(&fleet, "NotSigned", &[&second.pinned]).await?;
    assert!(world.plans.get("node-1").is_none_or(|plan| plan.spec.image.is_none()), "a node heard of it");
    cosign.sign(&second.pinned, &key, Form::Classic).await?;
    fleet.until_all_run(&second.digest, LIMIT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moves_after_it_was_asked_for_changes_nothing() -> Result<()> {
    let (fleet, cosign) =
        tokio::try_join!(async { Fleet::start(&FleetOptions::of(1)).await }, Cosign::new())?;
    let key = cosign.key("ours", Kind::P256).await?;
    let second = fleet.publish(&OsImage::good("2")).await?;
    cosign.sign(&second.pinned, &key, Form::Bundle).await?;
    let mut paused = signed_by(&key)?;
    paused["rollout"] = json!({ "pauses": [{ "owner": "test" }] });
    fleet.want("os", &second.tagged, paused).await?;
    fleet.until("the tag is resolved", LIMIT, |world| resolved(world, &second.pinned)).await?;
    let moved = fleet.publish(&OsImage { filler: 2 << 20, ..OsImage::good("2") }).await?;
    assert!(moved.tagged == second.tagged && moved.digest != second.digest, "{moved:?}");
    fleet.want("os", &second.tagged, signed_by(&key)?).await?;
    fleet.until_all_run(&second.digest, LIMIT).await?;
    Ok(())
}
