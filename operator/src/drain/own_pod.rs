//! The pod that the operator itself runs in.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// The pod that this process runs in, if it runs in one.
#[derive(Clone, Debug)]
pub struct OwnPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl OwnPod {
    pub(super) fn is(&self, pod: &Pod) -> bool {
        pod.name_any() == self.name && pod.namespace().as_ref() == Some(&self.namespace)
    }
}

/// Whether another replica of our own pod is ready on another node. Without one, as in a cluster of one node, our pod
/// stays and goes through the reboot with its node: once evicted, nobody would be left to approve it.
pub fn relieved(own: &Pod, siblings: &[Pod]) -> bool {
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let controller = |pod: &Pod| {
        pod.owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone())
    };
    siblings.iter().any(|pod| {
        let ready = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        controller(pod).is_some()
            && controller(pod) == controller(own)
            && node(pod) != node(own)
            && pod.metadata.deletion_timestamp.is_none()
            && ready.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

// Values are written where they are handed over.
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn our_own_pod_leaves_only_when_another_replica_is_ready_elsewhere() {
        let replica = |name: &str, node: &str, ready: &str| {
            let owner = json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "u", "controller": true,
            });
            let status = json!({ "conditions": [{ "type": "Ready", "status": ready }] });
            let spec = json!({ "containers": [], "nodeName": node });
            pod(json!({
                "metadata": { "name": name, "namespace": "web", "ownerReferences": [owner] },
                "spec": spec, "status": status,
            }))
        };
        let own = replica("op-1", "n1", "True");
        assert!(OwnPod { namespace: "web".into(), name: "op-1".into() }.is(&own));
        assert!(!relieved(&own, std::slice::from_ref(&own)), "it does not relieve itself");
        assert!(!relieved(&own, &[replica("op-2", "n1", "True")]), "it would leave the node as well");
        assert!(!relieved(&own, &[replica("op-2", "n2", "False")]));
        assert!(!relieved(&own, &[pod(json!({ "metadata": { "name": "bare", "namespace": "web" } }))]));
        assert!(relieved(&own, &[replica("op-2", "n2", "True")]));
    }
}
