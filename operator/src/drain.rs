//! Which pods leave a node before its reboot, and how they are asked to.

mod evict;

pub use evict::{evict, look};

use evenkeel_crds::managed_os_image::Drain;
use evenkeel_operator_core::DrainSeen;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Marks a pod that the kubelet runs from a file: the API server only shows it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays: a daemon, a mirror of a static pod, or finished.
    Stays,
    /// It is asked to leave.
    Leaves,
    /// It was asked, and is on its way.
    Leaving,
    /// It may not be asked; the reason names it and what allows it.
    Refused(String),
}

/// What a drain with these options does with a pod.
pub fn fate(pod: &Pod, drain: &Drain) -> Fate {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    if pod.annotations().contains_key(MIRROR)
        || controller.is_some_and(|owner| owner.kind == "DaemonSet")
        || matches!(phase, Some("Succeeded" | "Failed"))
    {
        return Fate::Stays;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Fate::Leaving;
    }
    let name = title(pod);
    if controller.is_none() && !drain.force {
        return Fate::Refused(format!("pod {name}, which no controller owns (drain.force evicts it)"));
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    if !drain.delete_emptydir_data && volumes.iter().any(|volume| volume.empty_dir.is_some()) {
        return Fate::Refused(format!(
            "pod {name}, which has an emptyDir (drain.deleteEmptydirData evicts it)"
        ));
    }
    Fate::Leaves
}

/// How far a node with these pods is drained. `refused` is what the last eviction that was refused said.
pub fn progress(pods: &[Pod], drain: &Drain, refused: Option<String>) -> DrainSeen {
    let fates: Vec<Fate> = pods.iter().map(|pod| fate(pod, drain)).collect();
    let left = fates.iter().filter(|fate| **fate != Fate::Stays).count();
    if left == 0 {
        return DrainSeen::Done;
    }
    let forbidden = fates.into_iter().find_map(|fate| match fate {
        Fate::Refused(why) => Some(why),
        _ => None,
    });
    DrainSeen::Remaining { pods: left, blocked_by: forbidden.or(refused) }
}

/// The pods to ask now. None while there is one that may not be asked: a drain that cannot end would only cost the
/// others their place.
pub fn to_evict<'a>(pods: &'a [Pod], drain: &Drain) -> Vec<&'a Pod> {
    if pods.iter().any(|pod| matches!(fate(pod, drain), Fate::Refused(_))) {
        return Vec::new();
    }
    pods.iter().filter(|pod| fate(pod, drain) == Fate::Leaves).collect()
}

/// The pod that this process runs in, if it runs in one.
#[derive(Clone, Debug)]
pub struct OwnPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl OwnPod {
    fn is(&self, pod: &Pod) -> bool {
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

fn title(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, owner: Option<&str>, more: &serde_json::Value) -> Pod {
        let owners = owner.map(|kind| {
            json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true }])
        });
        let mut value =
            json!({ "metadata": { "name": name, "namespace": "web", "ownerReferences": owners } });
        for (key, part) in more.as_object().unwrap() {
            if key == "metadata" {
                let into = value["metadata"].as_object_mut().unwrap();
                into.extend(part.as_object().unwrap().clone());
            } else {
                value[key] = part.clone();
            }
        }
        serde_json::from_value(value).unwrap()
    }

    fn options(force: bool, delete_emptydir_data: bool) -> Drain {
        Drain { force, delete_emptydir_data, ..Drain::default() }
    }

    #[test]
    fn daemons_mirrors_and_finished_pods_stay() {
        let stay = [
            pod("agent", Some("DaemonSet"), &json!({})),
            pod("etcd", Some("Node"), &json!({ "metadata": { "annotations": { MIRROR: "x" } } })),
            pod("job", Some("Job"), &json!({ "status": { "phase": "Succeeded" } })),
            pod("bare-job", None, &json!({ "status": { "phase": "Failed" } })),
        ];
        for pod in &stay {
            assert_eq!(fate(pod, &options(false, false)), Fate::Stays, "{}", pod.name_any());
        }
        assert_eq!(progress(&stay, &options(false, false), None), DrainSeen::Done);
    }

    #[test]
    fn a_pod_without_a_controller_or_with_local_data_needs_leave_and_stops_the_others() {
        let bare = pod("bare", None, &json!({}));
        let local = pod(
            "local",
            Some("ReplicaSet"),
            &json!({ "spec": { "containers": [], "volumes": [{ "name": "v", "emptyDir": {} }] } }),
        );
        let web = pod("web", Some("ReplicaSet"), &json!({}));
        let pods = [bare, local, web];
        assert!(to_evict(&pods, &options(false, true)).is_empty());
        assert!(to_evict(&pods, &options(true, false)).is_empty());
        assert_eq!(to_evict(&pods, &options(true, true)).len(), 3);
        let seen = progress(&pods, &options(false, true), Some("budget web".into()));
        let DrainSeen::Remaining { pods: 3, blocked_by: Some(by) } = seen else { panic!("{seen:?}") };
        assert!(by.contains("web/bare") && by.contains("drain.force"), "{by}");
    }

    #[test]
    fn our_own_pod_leaves_only_when_another_replica_is_ready_elsewhere() {
        let replica = |name: &str, node: &str, ready: &str| {
            let status = json!({ "conditions": [{ "type": "Ready", "status": ready }] });
            let spec = json!({ "containers": [], "nodeName": node });
            pod(name, Some("ReplicaSet"), &json!({ "spec": spec, "status": status }))
        };
        let own = replica("op-1", "n1", "True");
        assert!(OwnPod { namespace: "web".into(), name: "op-1".into() }.is(&own));
        assert!(!relieved(&own, std::slice::from_ref(&own)), "it does not relieve itself");
        assert!(!relieved(&own, &[replica("op-2", "n1", "True")]), "it would leave the node as well");
        assert!(!relieved(&own, &[replica("op-2", "n2", "False")]));
        assert!(!relieved(&own, &[pod("bare", None, &json!({}))]));
        assert!(relieved(&own, &[replica("op-2", "n2", "True")]));
    }

    #[test]
    fn a_pod_on_its_way_counts_until_it_is_gone() {
        let leaving = [pod(
            "web",
            Some("ReplicaSet"),
            &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
        )];
        assert!(to_evict(&leaving, &options(false, true)).is_empty());
        assert_eq!(
            progress(&leaving, &options(false, true), None),
            DrainSeen::Remaining { pods: 1, blocked_by: None }
        );
        assert_eq!(progress(&[], &options(false, true), None), DrainSeen::Done);
    }
}
