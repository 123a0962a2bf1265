//! The `ManagedOSVersion` objects of a channel, written only when they change, and only as they were seen.

use std::collections::BTreeMap;

use evenkeel_crds::{
    ManagedOSImage, ManagedOSVersion, ManagedOSVersionChannel, ManagedOSVersionSpec,
    names::{CHANNEL, NO_LONGER_IN_SYNC, OPERATOR_FIELD_MANAGER},
};
use evenkeel_operator_core::channel::{sync::Change, uses::Uses};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use serde::de::DeserializeOwned;

use crate::{
    api::{ApiError, call},
    context::Context,
    guarded::Guarded,
    seen::KnownPlan,
};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Does what has to be done. An object that is not what it was is left for the next look.
pub(super) async fn apply(
    context: &Context,
    channel: &ManagedOSVersionChannel,
    changes: &[Change],
) -> Result<(), ApiError> {
    for change in changes {
        match change {
            Change::Create(name, spec) => create(context, channel, name, spec).await?,
            Change::Update(name, spec) => update(context, name, Some(spec)).await?,
            Change::Retire(name) => update(context, name, None).await?,
            Change::Delete(name) => delete(context, name).await?,
        }
    }
    Ok(())
}

fn api(context: &Context) -> Api<ManagedOSVersion> {
    Api::all(context.clients.main.clone())
}

fn params() -> PostParams {
    PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Fails when somebody has made one of this name meanwhile: that one is theirs.
async fn create(
    context: &Context,
    channel: &ManagedOSVersionChannel,
    name: &str,
    spec: &ManagedOSVersionSpec,
) -> Result<(), ApiError> {
    let mut version = ManagedOSVersion::new(name, spec.clone());
    version.metadata.labels = Some(BTreeMap::from([(CHANNEL.to_owned(), channel.name_any())]));
    let what = format!("create ManagedOSVersion {name}");
    let written = call(what, api(context).create(&params(), &version)).await?;
    context.seen.versions.wrote(Guarded(Ok(written)));
    Ok(())
}

/// Writes what it shall say, or marks it as no longer listed. Labels and annotations of others stay.
async fn update(context: &Context, name: &str, spec: Option<&ManagedOSVersionSpec>) -> Result<(), ApiError> {
    let what = format!("update ManagedOSVersion {name}");
    let stale = || ApiError::NotFound { what: what.clone() };
    let seen = context.seen.versions.get(name).ok_or_else(stale)?;
    // One that cannot be read is neither changed nor marked.
    let Ok(version) = &seen.0 else { return Ok(()) };
    let mut version = version.clone();
    match spec {
        Some(spec) => {
            version.spec = spec.clone();
            version.labels_mut().remove(NO_LONGER_IN_SYNC);
        }
        None => {
            version.labels_mut().insert(NO_LONGER_IN_SYNC.to_owned(), "true".to_owned());
        }
    }
    version.metadata.managed_fields = None;
    let written = call(what.clone(), api(context).replace(name, &params(), &version)).await?;
    context.seen.versions.wrote(Guarded(Ok(written)));
    Ok(())
}

async fn delete(context: &Context, name: &str) -> Result<(), ApiError> {
    let Some(version) = context.seen.versions.get(name) else { return Ok(()) };
    let (uid, resource_version) = (version.uid(), version.resource_version());
    let preconditions = Some(Preconditions { uid: uid.clone(), resource_version });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    match call(format!("delete ManagedOSVersion {name}"), api(context).delete(name, &params)).await {
        Ok(_) | Err(ApiError::NotFound { .. }) => {
            context.seen.versions.deleted(name, uid);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Who uses versions, as the watches show it.
pub(super) fn uses_seen(context: &Context) -> Uses {
    let mut uses = Uses::default();
    for image in context.seen.images.all().iter().filter_map(|image| image.0.as_ref().ok()) {
        uses.by_image(image);
    }
    for plan in context.seen.plans.all().iter().filter_map(|plan| plan.0.as_ref().ok()) {
        uses.by_node(&plan.name_any(), &plan.spec, &plan.status);
    }
    uses
}

/// The same, as it is now.
pub(super) async fn uses_now(context: &Context) -> Result<Uses, ApiError> {
    let mut uses = uses_seen(context);
    list::<ManagedOSImage>(context, |image| uses.by_image(image)).await?;
    list::<KnownPlan>(context, |plan| uses.by_node(&plan.name_any(), &plan.spec, &plan.status)).await?;
    Ok(uses)
}

async fn list<K>(context: &Context, mut each: impl FnMut(&K)) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<Guarded<K>> = Api::all(context.clients.main.clone());
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = call(format!("list all {}", K::plural(&())), api.list(&params)).await?;
        page.items.iter().filter_map(|object| object.0.as_ref().ok()).for_each(&mut each);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
