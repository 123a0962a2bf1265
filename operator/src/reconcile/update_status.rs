//! Shows people where a rollout is. Written only when it changed.

use std::time::{Duration, Instant};

use evenkeel_crds::{ManagedOSImage, ManagedOSImageStatus, names::OPERATOR_FIELD_MANAGER};
use evenkeel_operator_core::{Report, Snapshot};
use evenkeel_registry::Resolved;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::error_boundary::InvalidObject,
};
use serde_json::{Value, json};

use crate::{
    api::{ApiError, call},
    context::Context,
    events,
    guarded::Guarded,
    resolve,
    status::{ImageSeen, Problem, render},
};

/// Counts that change with each look are shown so often.
const COUNTS_PERIOD: Duration = Duration::from_secs(1);

/// Shows a look's result, and tells what changed since the last one. The answer is when to show what was held back.
pub async fn update(
    context: &Context,
    image: &ManagedOSImage,
    seen: ImageSeen,
    problem: Option<&Problem>,
    told: Option<(&Report, &Snapshot)>,
) -> Result<Option<Duration>, ApiError> {
    let name = image.name_any();
    let before = image.status.clone().unwrap_or_default();
    let status = render(seen, problem, told, image.metadata.generation, &before, Timestamp::now());
    context.metrics.images().show(&name, &status, told.map(|(report, _)| report), Timestamp::now());
    let shown = context.remember(&name, |memory| memory.shown);
    let left = shown.and_then(|shown| COUNTS_PERIOD.checked_sub(shown.elapsed()));
    let held_back = left.filter(|_| status != before && only_counts(&before, &status));
    if status != before && held_back.is_none() {
        write(context, image, &status).await?;
        context.remember(&name, |memory| memory.shown = Some(Instant::now()));
        events::publish(&context.recorder, image, &events::of_status(&before, &status)).await;
    }
    if let Some((report, _)) = told {
        let were = context.remember(&name, |memory| memory.nodes.replace(report.nodes.clone()));
        if let Some(were) = were {
            events::publish(&context.recorder, image, &events::of_nodes(&were, &report.nodes)).await;
        }
    }
    Ok(held_back)
}

/// Whether nothing changed but how many nodes are where, and the words about it.
fn only_counts(before: &ManagedOSImageStatus, after: &ManagedOSImageStatus) -> bool {
    let verdict = |status: &ManagedOSImageStatus| -> Vec<_> {
        let conditions = status.conditions.iter();
        conditions
            .map(|condition| (condition.r#type.clone(), condition.status, condition.reason.clone()))
            .collect()
    };
    let counts_of_after = ManagedOSImageStatus {
        summary: after.summary.clone(),
        nodes: after.nodes.clone(),
        phases: after.phases.clone(),
        conditions: after.conditions.clone(),
        ..before.clone()
    };
    counts_of_after == *after && verdict(before) == verdict(after)
}

/// Keeps the digest that the registry gave. Nothing else of the status changes: no node was looked at yet.
pub async fn resolved(
    context: &Context,
    image: &ManagedOSImage,
    (reference, resolved): &(String, Resolved),
) -> Result<(), ApiError> {
    let before = image.status.clone().unwrap_or_default();
    let status = ManagedOSImageStatus {
        image: Some(resolved.image.clone()),
        resolved_from: Some(reference.clone()),
        verified_by: resolve::fingerprint(image.spec.verification.as_ref()),
        version: resolved.version.clone().or_else(|| resolve::tag(reference)),
        ..before.clone()
    };
    let known = resolve::known(image, reference).is_none_or(|known| known == resolved.image);
    debug_assert!(known, "a reference is resolved once");
    write(context, image, &status).await?;
    context.remember(&image.name_any(), |memory| memory.answer = None);
    events::publish(&context.recorder, image, &events::of_status(&before, &status)).await;
    Ok(())
}

pub(super) async fn write(
    context: &Context,
    image: &ManagedOSImage,
    status: &ManagedOSImageStatus,
) -> Result<(), ApiError> {
    let api: Api<ManagedOSImage> = Api::all(context.clients.main.clone());
    let name = image.name_any();
    let document = json!({
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "ManagedOSImage",
        "metadata": { "name": name, "uid": image.uid(), "resourceVersion": image.resource_version() },
        "status": status,
    });
    let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
    let what = format!("write the status of ManagedOSImage {name}");
    if !context.leadership.holds() {
        // The lease was lost in the middle of a look, as when the process stood still: another one says how it is.
        return Err(ApiError::Conflict { what });
    }
    let written = call(what, api.patch_status(&name, &params, &Patch::Apply(&document))).await?;
    context.seen.images.wrote(Guarded(Ok(written)));
    Ok(())
}

/// Says of an object that this version cannot read that it cannot.
pub async fn unreadable(context: &Context, name: &str, invalid: &InvalidObject) -> Result<(), ApiError> {
    tracing::warn!(image = name, error = invalid.error, "this ManagedOSImage cannot be read");
    let kind = ApiResource::erase::<ManagedOSImage>(&());
    let api: Api<DynamicObject> = Api::all_with(context.clients.main.clone(), &kind);
    let message = format!(
        "this operator cannot read the object ({}): correct it, or upgrade the operator to the version of the CRDs",
        invalid.error
    );
    let object = call(format!("get ManagedOSImage {name}"), api.get_status(name)).await?;
    let before: Value = object.data.get("status").cloned().unwrap_or_default();
    let already = before["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|c| c["type"] == "Stalled" && c["message"] == message));
    if already {
        return Ok(());
    }
    let problem = Problem::lasting("InvalidSpec", message);
    let known = ManagedOSImageStatus::default();
    let generation = invalid.metadata.generation;
    let status = render(ImageSeen::default(), Some(&problem), None, generation, &known, Timestamp::now());
    let patch = json!({ "status": { "conditions": status.conditions, "summary": status.summary } });
    let params = PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    let what = format!("write the status of ManagedOSImage {name}");
    call(what, api.patch_status(name, &params, &Patch::Merge(&patch))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::{
        Condition,
        condition::{ConditionStatus, Time},
        managed_os_image::NodeCounts,
    };

    fn status(updated: i64, reason: &str) -> ManagedOSImageStatus {
        ManagedOSImageStatus {
            nodes: NodeCounts { updated, ..NodeCounts::default() },
            conditions: vec![Condition {
                r#type: "Ready".into(),
                status: ConditionStatus::False,
                reason: reason.into(),
                message: format!("{updated} nodes are done"),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
                observed_generation: None,
            }],
            ..ManagedOSImageStatus::default()
        }
    }

    #[test]
    fn counts_may_wait_and_all_else_may_not() {
        let before = status(1, "RolloutInProgress");
        assert!(only_counts(&before, &status(2, "RolloutInProgress")));
        assert!(!only_counts(&before, &status(1, "Paused")));
        let resolved = ManagedOSImageStatus { image: Some("r.example/os@sha256:1".into()), ..before.clone() };
        assert!(!only_counts(&before, &resolved));
    }
}
