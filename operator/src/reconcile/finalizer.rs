//! Keeps a deleted image object until its nodes are as they were.

use evenkeel_crds::{
    ManagedOSImage,
    names::{FINALIZER, OPERATOR_FIELD_MANAGER},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::{ApiError, call},
    context::Context,
    guarded::Guarded,
};

/// Whether an image object has it.
pub fn is_set(image: &ManagedOSImage) -> bool {
    image.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Sets it.
pub async fn set(context: &Context, image: &ManagedOSImage) -> Result<(), ApiError> {
    let mut finalizers = image.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    write(context, image, &finalizers).await
}

/// Removes it: the API server then deletes the object.
pub async fn remove(context: &Context, image: &ManagedOSImage) -> Result<(), ApiError> {
    let kept: Vec<String> = image.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    match write(context, image, &kept).await {
        Err(ApiError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

async fn write(context: &Context, image: &ManagedOSImage, finalizers: &[String]) -> Result<(), ApiError> {
    let api: Api<ManagedOSImage> = Api::all(context.clients.main.clone());
    let name = image.name_any();
    // The list is replaced as a whole: the version that was read makes sure that nobody's finalizer gets lost.
    let patch = json!({
        "metadata": { "resourceVersion": image.resource_version(), "uid": image.uid(), "finalizers": finalizers },
    });
    let params = PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PatchParams::default() };
    let what = format!("write the finalizers of ManagedOSImage {name}");
    let written = call(what, api.patch(&name, &params, &Patch::Merge(&patch))).await?;
    context.seen.images.wrote(Guarded(Ok(written)));
    Ok(())
}
