//! An image object that follows a channel goes on to another version of it: written down first, acted on at the next look.

use evenkeel_crds::{
    ManagedOSImage, ManagedOSImageStatus,
    following::ChannelPosition,
    names::{APPROVED_BY, APPROVED_VERSION, CHANNEL, NO_LONGER_IN_SYNC},
};
use evenkeel_operator_core::channel::promotion::{Approval, Candidate, decide};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::update_status;
use crate::{
    api::ApiError,
    context::Context,
    events::{self, Told},
};

/// Whether the image object has moved in its channel.
pub async fn promote(context: &Context, image: &ManagedOSImage) -> Result<bool, ApiError> {
    if image.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    let before = image.status.clone().unwrap_or_default();
    let position = position(context, image, before.channel.as_ref());
    if position == before.channel {
        return Ok(false);
    }
    let told = told(before.channel.as_ref(), position.as_ref(), &image.name_any());
    update_status::write(context, image, &ManagedOSImageStatus { channel: position, ..before }).await?;
    events::publish(&context.recorder, image, &told).await;
    Ok(true)
}

/// Where it is now; `None` if it follows none.
fn position(
    context: &Context,
    image: &ManagedOSImage,
    before: Option<&ChannelPosition>,
) -> Option<ChannelPosition> {
    let follow = image.spec.channel.as_ref()?;
    let versions = context.seen.versions.all();
    let candidates: Vec<Candidate<'_>> = versions
        .iter()
        .filter_map(|version| version.0.as_ref().ok())
        .filter(|version| version.labels().get(CHANNEL) == Some(&follow.name))
        .map(|version| Candidate {
            name: version.metadata.name.as_deref().unwrap_or_default(),
            spec: &version.spec,
            retired: version.labels().contains_key(NO_LONGER_IN_SYNC),
        })
        .collect();
    let decided = decide(follow, before, &candidates, approval(image).as_ref(), Timestamp::now());
    // A constraint that is none is told where the version is asked for.
    decided.ok().or_else(|| before.cloned())
}

fn approval(image: &ManagedOSImage) -> Option<Approval> {
    let version = image.annotations().get(APPROVED_VERSION)?.clone();
    let by = image.annotations().get(APPROVED_BY).filter(|by| !by.is_empty()).cloned();
    Some(Approval { version, by: by.or_else(|| writer(image, APPROVED_VERSION)) })
}

/// The program that wrote an annotation last.
fn writer(image: &ManagedOSImage, annotation: &str) -> Option<String> {
    let key = format!("f:{annotation}");
    let wrote = |fields: &serde_json::Value| fields["f:metadata"]["f:annotations"].get(&key).is_some();
    let entries = image.managed_fields().iter();
    let found = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| wrote(&fields.0)));
    found.max_by_key(|entry| entry.time.clone()).and_then(|entry| entry.manager.clone())
}

fn told(before: Option<&ChannelPosition>, after: Option<&ChannelPosition>, image: &str) -> Vec<Told> {
    let Some(after) = after else { return Vec::new() };
    let normal = |reason: &str, note: String| Told { warning: false, reason: reason.to_owned(), note };
    let mut told = Vec::new();
    let was = |pick: fn(&ChannelPosition) -> &Option<String>| before.and_then(|before| pick(before).as_ref());
    if let Some(version) = after.version.as_ref().filter(|version| was(|at| &at.version) != Some(version)) {
        let by = after.approved_by.as_ref().map_or_else(String::new, |by| format!(", approved by {by}"));
        told.push(normal(
            "VersionPromoted",
            format!("channel {}: {version} is the version to run{by}", after.name),
        ));
    }
    if let Some(version) = after.available.as_ref().filter(|version| was(|at| &at.available) != Some(version))
    {
        let note = format!(
            "channel {} has {version}, which waits for approval: kubectl annotate managedosimage {image} --overwrite \
             {APPROVED_VERSION}={version} {APPROVED_BY}=YOU",
            after.name
        );
        told.push(normal("VersionAvailable", note));
    }
    told
}
