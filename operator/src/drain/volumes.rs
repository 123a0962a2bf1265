//! Volumes that are still attached to a node whose pods have left.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod},
    storage::v1::VolumeAttachment,
};
use kube::{Api, Client, ResourceExt as _};

use super::{Fate, Rules};
use crate::{
    api::{ApiError, call},
    context::Context,
};

/// What is still attached to the node and not in use by a pod that stays there: for people; absent if nothing is.
pub async fn attached(
    context: &Context,
    node: &str,
    pods: &[Pod],
    rules: &Rules<'_>,
) -> Result<Option<String>, ApiError> {
    let here: Vec<_> =
        context.seen.attachments().into_iter().filter(|one| one.spec.node_name == node).collect();
    if here.is_empty() {
        return Ok(None);
    }
    let mut in_use = BTreeSet::new();
    for pod in pods.iter().filter(|pod| rules.fate(pod) == Fate::Stays) {
        in_use.extend(volumes_of(&context.clients.main, pod).await?);
    }
    Ok(here.iter().find_map(|one| still_there(one, &in_use)))
}

fn still_there(attachment: &VolumeAttachment, in_use: &BTreeSet<String>) -> Option<String> {
    let volume = attachment.spec.source.persistent_volume_name.as_ref();
    if volume.is_some_and(|volume| in_use.contains(volume)) {
        return None;
    }
    let name = volume.cloned().unwrap_or_else(|| attachment.name_any());
    Some(format!("volume {name}, which {} has not detached yet", attachment.spec.attacher))
}

/// The persistent volumes that a pod has by its claims.
async fn volumes_of(client: &Client, pod: &Pod) -> Result<Vec<String>, ApiError> {
    let namespace = pod.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let mut volumes = Vec::new();
    for name in claims_of(pod) {
        let what = format!("get PersistentVolumeClaim {namespace}/{name}");
        if let Some(claim) = call(what, claims.get_opt(&name)).await? {
            volumes.extend(claim.spec.and_then(|spec| spec.volume_name));
        }
    }
    Ok(volumes)
}

fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let named = volumes.iter().filter_map(|volume| {
        let by_name = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        // Its claim has the names of both.
        let made = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name));
        by_name.or(made)
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_by_name_and_those_made_for_the_pod_are_found() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "db-0", "namespace": "data" },
            "spec": { "containers": [], "volumes": [
                { "name": "a", "persistentVolumeClaim": { "claimName": "data-db-0" } },
                { "name": "scratch", "ephemeral": {} },
                { "name": "local", "emptyDir": {} },
            ] },
        }))
        .unwrap();
        assert_eq!(claims_of(&pod), ["data-db-0", "db-0-scratch"]);
    }

    #[test]
    fn a_volume_of_a_pod_that_stays_may_stay() {
        let attachment: VolumeAttachment = serde_json::from_value(json!({
            "metadata": { "name": "csi-1" },
            "spec": { "attacher": "csi.example", "nodeName": "n1", "source": { "persistentVolumeName": "pv-1" } },
        }))
        .unwrap();
        let said = still_there(&attachment, &BTreeSet::new()).unwrap();
        assert!(said.contains("pv-1") && said.contains("csi.example"), "{said}");
        assert_eq!(still_there(&attachment, &BTreeSet::from(["pv-1".to_owned()])), None);
    }
}
