//! Members of etcd, where they are pods, as kubeadm and its kin run them.

use std::collections::BTreeMap;

use evenkeel_crds::node_plan::{Phase, Target};
use evenkeel_operator_core::{NodeSeen, Snapshot};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

use crate::{
    api::{ApiError, call},
    context::Context,
};

/// Namespace and labels that kubeadm gives to etcd's static pods.
const NAMESPACE: &str = "kube-system";
const LABELS: &str = "component=etcd";
/// More members than anybody has; etcd's own advice is seven at most.
const MEMBERS_MAX: u32 = 64;

/// Lists them, while a control-plane node waits for its turn.
pub async fn look(context: &Context, snapshot: &mut Snapshot) -> Result<(), ApiError> {
    if !snapshot.nodes.values().any(waits) {
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(context.clients.main.clone(), NAMESPACE);
    let params = ListParams::default().labels(LABELS).limit(MEMBERS_MAX);
    snapshot.etcd = members(&call("list the pods of etcd", pods.list(&params)).await?.items);
    Ok(())
}

fn waits(node: &NodeSeen) -> bool {
    let target = node.plan.as_ref().and_then(|plan| plan.spec.target);
    let staged = target == Some(Target::Staged) && node.phase() == Phase::Staged;
    let kept = target == Some(Target::Committed) && node.phase() == Phase::Committed;
    let wanted = staged || kept || node.reset.is_some();
    node.control_plane && node.ours() && node.disruption().is_none() && wanted
}

/// By node: whether its member is ready.
fn members(pods: &[Pod]) -> BTreeMap<String, bool> {
    let ready = |pod: &Pod| {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none()
            && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    pods.iter().filter_map(|pod| Some((pod.spec.as_ref()?.node_name.clone()?, ready(pod)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_serves_when_its_pod_is_ready() {
        let pod = |node: Option<&str>, ready: &str| {
            serde_json::from_value::<Pod>(json!({
                "metadata": { "name": "etcd" },
                "spec": { "nodeName": node, "containers": [] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap()
        };
        let seen = members(&[pod(Some("c1"), "True"), pod(Some("c2"), "False"), pod(None, "True")]);
        assert_eq!(seen, BTreeMap::from([("c1".to_owned(), true), ("c2".to_owned(), false)]));
    }
}
