//! What a drain does with each pod.

use evenkeel_crds::drain::{Drain, EvictionOrder};
use evenkeel_operator_core::DrainSeen;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    ResourceExt as _,
    core::{ParseExpressionError, Selector, SelectorExt as _},
};

/// Marks a pod that the kubelet runs from a file: the API server only shows it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays: a daemon, a mirror of a static pod, not selected, finished, or not waited for any longer.
    Stays,
    /// It is asked to leave.
    Leaves,
    /// It was asked, and is on its way.
    Leaving,
    /// It may not be asked; the reason names it and what allows it.
    Refused(String),
}

/// How one drain goes.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// What was asked for.
    pub drain: &'a Drain,
    selector: Selector,
    forced: bool,
    now: Timestamp,
}

impl<'a> Rules<'a> {
    /// The rules of a drain; `forced` when pods that refuse are deleted by now.
    pub fn new(drain: &'a Drain, forced: bool, now: Timestamp) -> Result<Self, ParseExpressionError> {
        let selector = Selector::try_from(drain.pod_selector.clone().unwrap_or_default())?;
        Ok(Self { drain, selector, forced, now })
    }

    /// What becomes of a pod.
    pub fn fate(&self, pod: &Pod) -> Fate {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        if pod.annotations().contains_key(MIRROR)
            || matches!(phase, Some("Succeeded" | "Failed"))
            || !self.selector.matches(pod.labels())
        {
            return Fate::Stays;
        }
        let of_daemon_set = controller.is_some_and(|owner| owner.kind == "DaemonSet");
        if of_daemon_set && self.drain.ignore_daemon_sets {
            return Fate::Stays;
        }
        if let Some(end) = &pod.metadata.deletion_timestamp {
            return if self.overstays(end.0) { Fate::Stays } else { Fate::Leaving };
        }
        let name = title(pod);
        if of_daemon_set {
            // Even by force: it would come back at once, and again.
            return Fate::Refused(format!(
                "pod {name} of a DaemonSet (drain.ignoreDaemonSets leaves it alone)"
            ));
        }
        if self.forced {
            return Fate::Leaves;
        }
        if controller.is_none() && !self.drain.force {
            return Fate::Refused(format!("pod {name}, which no controller owns (drain.force evicts it)"));
        }
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        if !self.drain.delete_emptydir_data && volumes.iter().any(|volume| volume.empty_dir.is_some()) {
            return Fate::Refused(format!(
                "pod {name}, which has an emptyDir (drain.deleteEmptydirData evicts it)"
            ));
        }
        Fate::Leaves
    }

    /// Whether a pod whose grace period ended at `end` is waited for no longer.
    fn overstays(&self, end: Timestamp) -> bool {
        let over = self.now.duration_since(end).as_secs();
        self.forced && over > 0 || self.drain.skip_wait_for_delete_timeout.is_some_and(|limit| over > limit)
    }

    /// How far a node with these pods is drained. `refused` is what the last eviction that was refused said.
    pub fn progress(&self, pods: &[Pod], refused: Option<String>) -> DrainSeen {
        let fates: Vec<Fate> = pods.iter().map(|pod| self.fate(pod)).collect();
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
    pub fn to_evict<'p>(&self, pods: &'p [Pod]) -> Vec<&'p Pod> {
        let fates: Vec<(&Pod, Fate)> = pods.iter().map(|pod| (pod, self.fate(pod))).collect();
        if fates.iter().any(|(_, fate)| matches!(fate, Fate::Refused(_))) {
            return Vec::new();
        }
        let there = fates.iter().filter(|(_, fate)| *fate != Fate::Stays);
        let lowest = there.map(|(pod, _)| priority(pod)).min();
        let next = |pod: &Pod| {
            self.drain.order == EvictionOrder::AllAtOnce || Some(priority(pod)) == lowest || self.forced
        };
        fates.iter().filter(|(pod, fate)| *fate == Fate::Leaves && next(pod)).map(|(pod, _)| *pod).collect()
    }
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// A pod by namespace and name.
pub fn title(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

// Values are written where they are handed over.
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, owner: Option<&str>, more: &Value) -> Pod {
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

    fn drain(options: Value) -> Drain {
        serde_json::from_value(options).unwrap()
    }

    fn rules(drain: &Drain) -> Rules<'_> {
        Rules::new(drain, false, now()).unwrap()
    }

    fn forced(drain: &Drain) -> Rules<'_> {
        Rules::new(drain, true, now()).unwrap()
    }

    #[test]
    fn daemons_mirrors_and_finished_pods_stay() {
        let stay = [
            pod("agent", Some("DaemonSet"), &json!({})),
            pod("etcd", Some("Node"), &json!({ "metadata": { "annotations": { MIRROR: "x" } } })),
            pod("job", Some("Job"), &json!({ "status": { "phase": "Succeeded" } })),
            pod("bare-job", None, &json!({ "status": { "phase": "Failed" } })),
        ];
        let drain = drain(json!({ "deleteEmptydirData": false }));
        for pod in &stay {
            assert_eq!(rules(&drain).fate(pod), Fate::Stays, "{}", pod.name_any());
        }
        assert_eq!(rules(&drain).progress(&stay, None), DrainSeen::Done);
    }

    #[test]
    fn a_daemon_that_is_not_to_be_ignored_stops_the_drain_even_by_force() {
        let daemon = pod("agent", Some("DaemonSet"), &json!({}));
        let drain = drain(json!({ "ignoreDaemonSets": false, "force": true }));
        for rules in [rules(&drain), forced(&drain)] {
            let Fate::Refused(why) = rules.fate(&daemon) else { panic!("it is not refused") };
            assert!(why.contains("web/agent") && why.contains("drain.ignoreDaemonSets"), "{why}");
        }
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
        let options =
            |force: bool, emptydir: bool| drain(json!({ "force": force, "deleteEmptydirData": emptydir }));
        assert!(rules(&options(false, true)).to_evict(&pods).is_empty());
        assert!(rules(&options(true, false)).to_evict(&pods).is_empty());
        assert_eq!(rules(&options(true, true)).to_evict(&pods).len(), 3);
        assert_eq!(forced(&options(false, false)).to_evict(&pods).len(), 3);
        let seen = rules(&options(false, true)).progress(&pods, Some("budget web".into()));
        let DrainSeen::Remaining { pods: 3, blocked_by: Some(by) } = seen else { panic!("{seen:?}") };
        assert!(by.contains("web/bare") && by.contains("drain.force"), "{by}");
    }

    #[test]
    fn a_pod_on_its_way_counts_until_it_is_gone_or_overstays() {
        let leaving = |minutes: u32| {
            let end = format!("2026-01-01T00:{minutes:02}:00Z");
            [pod("web", Some("ReplicaSet"), &json!({ "metadata": { "deletionTimestamp": end } }))]
        };
        let patient = Drain::default();
        assert!(rules(&patient).to_evict(&leaving(1)).is_empty());
        let one_left = DrainSeen::Remaining { pods: 1, blocked_by: None };
        assert_eq!(rules(&patient).progress(&leaving(1), None), one_left);
        assert_eq!(forced(&patient).progress(&leaving(59), None), DrainSeen::Done);
        let five_minutes = drain(json!({ "skipWaitForDeleteTimeout": 300 }));
        assert_eq!(rules(&five_minutes).progress(&leaving(54), None), DrainSeen::Done);
        assert_eq!(rules(&five_minutes).progress(&leaving(56), None), one_left);
        assert_eq!(rules(&patient).progress(&[], None), DrainSeen::Done);
    }

    #[test]
    fn only_selected_pods_leave() {
        let labelled =
            |name, app| pod(name, Some("ReplicaSet"), &json!({ "metadata": { "labels": { "app": app } } }));
        let pods = [labelled("web", "web"), labelled("db", "db")];
        let drain = drain(json!({
            "podSelector": { "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["db"] }] },
        }));
        let names: Vec<String> = rules(&drain).to_evict(&pods).into_iter().map(Pod::name_any).collect();
        assert_eq!(names, ["web"]);
    }

    #[test]
    fn the_next_priority_waits_until_the_one_before_is_gone() {
        let with = |name, priority: i32, more: Value| {
            let mut value = more;
            value["spec"] = json!({ "containers": [], "priority": priority });
            pod(name, Some("ReplicaSet"), &value)
        };
        let going = json!({ "metadata": { "deletionTimestamp": "2026-01-01T01:00:30Z" } });
        let drain = drain(json!({ "order": "ByPriority" }));
        let names = |pods: &[Pod]| -> Vec<String> {
            rules(&drain).to_evict(pods).into_iter().map(Pod::name_any).collect()
        };
        let (low, high) = (with("low", -5, json!({})), with("high", 1000, json!({})));
        assert_eq!(names(&[high.clone(), low.clone(), with("too", -5, json!({}))]), ["low", "too"]);
        assert!(names(&[high.clone(), with("low", -5, going)]).is_empty(), "it is not gone yet");
        assert_eq!(names(std::slice::from_ref(&high)), ["high"]);
        assert_eq!(forced(&drain).to_evict(&[low, high]).len(), 2, "there is no time for an order any more");
    }
}
