//! What people see of a channel. Written only when it changed, or when the list was fetched.

use evenkeel_crds::{
    ManagedOSVersionChannel,
    condition::{Condition, ConditionStatus, Time, keep_transition_times},
    managed_os_version_channel::{ManagedOSVersionChannelStatus, VersionCounts},
    names::{CHANNEL, OPERATOR_FIELD_MANAGER},
};
use evenkeel_operator_core::channel::sync::{Change, Outcome};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::Memory;
use crate::{
    api::{ApiError, call},
    context::Context,
    events::{self, Told},
    status::{Problem, Verdict},
};

/// Names that are told before the rest is counted.
const NAMES_MAX: usize = 10;

/// Says that the channel is not followed.
pub(super) async fn disabled(context: &Context, channel: &ManagedOSVersionChannel) -> Result<(), ApiError> {
    let message = "it is not enabled: its versions stay as they are".to_owned();
    let before = channel.status.clone().unwrap_or_default();
    let status = status(channel, &before, Verdict::ready("ChannelDisabled", message));
    write(context, channel, &status).await
}

/// Says what was done to versions, and where the channel is.
pub(super) async fn shown(
    context: &Context,
    channel: &ManagedOSVersionChannel,
    memory: &Memory,
    outcome: Option<&Outcome>,
) -> Result<(), ApiError> {
    // Told first: what was done is not done again if the status cannot be written.
    let told = outcome.map(of_changes).unwrap_or_default();
    events::publish(&context.recorder, channel, &told).await;
    let before = channel.status.clone().unwrap_or_default();
    let mut status = status(channel, &before, verdict(&channel.name_any(), memory, outcome));
    status.last_synced = memory.synced.map(Time).or(status.last_synced);
    if let (Some(known), Some(outcome)) = (&memory.known, outcome) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        status.digest = Some(known.digest.clone());
        status.versions =
            VersionCounts { listed: count(known.listing.versions.len()), retired: count(outcome.retired) };
    }
    write(context, channel, &status).await
}

fn verdict(channel: &str, memory: &Memory, outcome: Option<&Outcome>) -> Verdict {
    if let Some((Problem { reason, message, passing }, _)) = &memory.failure {
        let kept = if memory.known.is_some() { "; its versions stay as they are" } else { "" };
        return Verdict::problem(reason, format!("{message}{kept}"), *passing);
    }
    let (Some(known), Some(outcome)) = (&memory.known, outcome) else {
        return Verdict::problem("Synchronizing", "the list of versions is being fetched".into(), true);
    };
    let listing = &known.listing;
    if !listing.unusable.is_empty() {
        let message = format!(
            "{} entries of the list cannot be used, and no version is retired while they are there: {}",
            listing.unusable.len(),
            some(listing.unusable.iter())
        );
        return Verdict::problem("InvalidEntries", message, false);
    }
    if !outcome.taken.is_empty() {
        let message = format!(
            "somebody else has the names of versions that the channel lists, and they are left alone: {}. Delete them, or \
             label them {CHANNEL}={channel} to give them to the channel",
            some(outcome.taken.iter())
        );
        return Verdict::problem("NamesTaken", message, false);
    }
    let held: Vec<String> = outcome.held.iter().map(|(name, user)| format!("{name} ({user})")).collect();
    let held = if held.is_empty() {
        String::new()
    } else {
        format!("; no longer listed, and kept because they are used: {}", some(held.iter()))
    };
    Verdict::ready("Synchronized", format!("{} versions are listed{held}", listing.versions.len()))
}

fn status(
    channel: &ManagedOSVersionChannel,
    before: &ManagedOSVersionChannelStatus,
    verdict: Verdict,
) -> ManagedOSVersionChannelStatus {
    let generation = channel.metadata.generation;
    let conditions = verdict.conditions(generation, Timestamp::now());
    ManagedOSVersionChannelStatus {
        observed_generation: generation,
        conditions: keep_transition_times(conditions, &before.conditions),
        ..before.clone()
    }
}

async fn write(
    context: &Context,
    channel: &ManagedOSVersionChannel,
    status: &ManagedOSVersionChannelStatus,
) -> Result<(), ApiError> {
    let before = channel.status.clone().unwrap_or_default();
    if *status == before {
        return Ok(());
    }
    let name = channel.name_any();
    let document = json!({
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "ManagedOSVersionChannel",
        "metadata": { "name": name, "uid": channel.uid(), "resourceVersion": channel.resource_version() },
        "status": status,
    });
    let api: Api<ManagedOSVersionChannel> = Api::all(context.clients.main.clone());
    let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
    let what = format!("write the status of ManagedOSVersionChannel {name}");
    call(what, api.patch_status(&name, &params, &Patch::Apply(&document))).await?;
    let told: Vec<Told> = of_status(&before, status).into_iter().collect();
    events::publish(&context.recorder, channel, &told).await;
    Ok(())
}

/// What was done to versions.
fn of_changes(outcome: &Outcome) -> Vec<Told> {
    let mut named = [
        ("VersionsAdded", "new"),
        ("VersionsChanged", "changed"),
        ("VersionsRetired", "no longer listed"),
        ("VersionsDeleted", "deleted"),
    ]
    .map(|words| (words, Vec::new()));
    for change in &outcome.changes {
        let (place, name) = match change {
            Change::Create(name, _) => (0, name),
            Change::Update(name, _) => (1, name),
            Change::Retire(name) => (2, name),
            Change::Delete(name) => (3, name),
        };
        named[place].1.push(name);
    }
    named
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|((reason, word), names)| Told {
            warning: false,
            reason: reason.to_owned(),
            note: format!("{word}: {}", some(names.into_iter())),
        })
        .collect()
}

/// What a change of the status tells: a new reason.
fn of_status(before: &ManagedOSVersionChannelStatus, after: &ManagedOSVersionChannelStatus) -> Option<Told> {
    let ready = |status: &ManagedOSVersionChannelStatus| {
        status.conditions.iter().find(|condition| condition.r#type == "Ready").cloned()
    };
    let now: Condition = ready(after)?;
    let changed = ready(before).is_none_or(|before| before.reason != now.reason);
    let warning = now.status != ConditionStatus::True;
    changed.then_some(Told { warning, reason: now.reason, note: now.message })
}

/// The first few, and how many there are besides.
fn some<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = names.len();
    let shown = names.take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if count > NAMES_MAX { format!("{shown} and {} more", count - NAMES_MAX) } else { shown }
}
