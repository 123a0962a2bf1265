//! Objects of any kind, by name or by labels.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::{GroupVersionKind, Selector},
    discovery::{self, Scope},
};

use super::Verdict;
use crate::{
    api::{ApiError, call},
    context::Context,
};

/// Objects that one gate may look at.
pub const OBJECTS_MAX: u32 = 100;

/// Which objects.
pub struct Wanted<'a> {
    /// Group and version.
    pub api_version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Namespace.
    pub namespace: Option<&'a str>,
    /// Name.
    pub name: Option<&'a str>,
    /// Labels.
    pub selector: Option<&'a LabelSelector>,
}

/// The objects, or why there are none to look at.
pub async fn find(
    context: &Context,
    wanted: &Wanted<'_>,
) -> Result<Result<Vec<DynamicObject>, Verdict>, ApiError> {
    let Wanted { api_version, kind, namespace, name, selector } = wanted;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let client = &context.clients.main;
    let title = format!("{api_version} {kind}");
    let what = format!("find out about {title}");
    let (resource, capabilities) = match call(what, discovery::pinned_kind(client, &gvk)).await {
        Ok(known) => known,
        Err(ApiError::Failed { source, .. }) if matches!(*source, kube::Error::Discovery(_)) => {
            return Ok(Err(Verdict::Unknown(format!("the API server does not know the kind {title}"))));
        }
        Err(ApiError::NotFound { .. }) => {
            return Ok(Err(Verdict::Unknown(format!("the API server does not know {api_version}"))));
        }
        Err(error) => return Err(error),
    };
    let api: Api<DynamicObject> = match (namespace, capabilities.scope) {
        (Some(namespace), Scope::Namespaced) => Api::namespaced_with(client.clone(), namespace, &resource),
        (None, Scope::Namespaced) if name.is_some() => {
            return Ok(Err(Verdict::Unknown(format!("{title} is in a namespace: the gate has to name it"))));
        }
        _ => Api::all_with(client.clone(), &resource),
    };
    if let Some(name) = name {
        let found = call(format!("get {title} {name}"), api.get_opt(name)).await?;
        return Ok(found
            .map(|object| vec![object])
            .ok_or_else(|| Verdict::NotMet(format!("there is no {title} {}{name}", prefix(*namespace)))));
    }
    let selector = match Selector::try_from(selector.cloned().unwrap_or_default()) {
        Ok(selector) => selector,
        Err(error) => return Ok(Err(Verdict::Unknown(format!("the selector cannot be used: {error}")))),
    };
    let params = ListParams::default().labels_from(&selector).limit(OBJECTS_MAX);
    let list = call(format!("list {title}"), api.list(&params)).await?;
    Ok(if list.metadata.continue_.is_some_and(|token| !token.is_empty()) {
        Err(Verdict::Unknown(format!("there are more than {OBJECTS_MAX} of {title}: select fewer")))
    } else if list.items.is_empty() {
        Err(Verdict::NotMet(format!("no {title} matches")))
    } else {
        Ok(list.items)
    })
}

fn prefix(namespace: Option<&str>) -> String {
    namespace.map_or_else(String::new, |namespace| format!("{namespace}/"))
}
