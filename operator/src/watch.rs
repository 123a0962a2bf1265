//! Watches that keep trying, and the stores that they fill.

use std::{fmt::Debug, future::ready, sync::Arc, time::Duration};

use evenkeel_crds::names::LIFECYCLE_REASON;
use futures::StreamExt as _;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Node, NodeCondition, NodeStatus},
        storage::v1::VolumeAttachment,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store},
        utils::Backoff,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::{api::with_causes, guarded::Guarded, seen::KnownPlan};

/// Longest pause between two tries. An API server that is back is to be noticed within the time in which a node on its
/// way must not be kept waiting; a handful of watches does not hurt one that is still struggling.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The client library's pauses, but no longer ones.
#[derive(Default)]
pub struct Patience(DefaultBackoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(PAUSE_MAX))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// What is read of the objects of a kind.
pub struct Reading<K> {
    /// Drops what nobody reads.
    pub trim: fn(&mut K),
    /// Whether the second, trimmed, says something that the first did not.
    pub is_news: fn(&K, &K) -> bool,
}

impl<K> Reading<K> {
    /// Whatever is left counts when it changes.
    pub fn trimmed(trim: fn(&mut K)) -> Self {
        Self { trim, is_news: |_, _| true }
    }
}

/// Watches all objects of a kind, for as long as the process lives. `changed` is told of each change; `trim` drops what
/// nobody reads.
pub fn reflect<K>(api: Api<K>, changed: &Arc<Notify>, trim: fn(&mut K)) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    reflect_some(api, watcher::Config::default(), changed, &Reading::trimmed(trim), |_| {})
}

/// The same, for the objects that `config` selects, and told only of what is news; `ended` is told of each that was
/// deleted, after the store.
pub fn reflect_some<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<Notify>,
    reading: &Reading<K>,
    ended: impl Fn(&K) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (trim, is_news) = (reading.trim, reading.is_news);
    let (store, mut writer) = reflector::store();
    let (known, changed) = (store.clone(), Arc::clone(changed));
    let stream = watcher(api, config).backoff(Patience::default()).modify(trim);
    tokio::spawn(stream.for_each(move |event| {
        match event {
            Ok(event) => {
                let news = match &event {
                    watcher::Event::Init | watcher::Event::InitApply(_) => false,
                    watcher::Event::Apply(object) => {
                        let before = known.get(&ObjectRef::from_obj(object));
                        before.is_none_or(|before| is_news(&before, object))
                    }
                    watcher::Event::InitDone | watcher::Event::Delete(_) => true,
                };
                writer.apply_watcher_event(&event);
                if let watcher::Event::Delete(object) = &event {
                    ended(object);
                }
                if news {
                    changed.notify_one();
                }
            }
            Err(error) => unwatched(&K::kind(&()), &error),
        }
        ready(())
    }));
    store
}

/// Tells of a watch that does not work. The watch itself tries again.
pub fn unwatched(kind: &str, error: &watcher::Error) {
    let unknown = matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 404
    );
    if unknown {
        tracing::warn!(kind, "the API server does not know this kind: is the chart evenkeel-crds installed?");
    } else {
        tracing::warn!(kind, error = with_causes(error), "cannot watch; trying again");
    }
}

/// What is read of an attachment is which volume is where.
pub fn trim_attachment(attachment: &mut VolumeAttachment) {
    attachment.metadata.managed_fields = None;
    attachment.metadata.annotations = None;
    attachment.status = None;
}

/// A Job's pods are described at length, and nobody here reads it.
pub fn trim_job(job: &mut Job) {
    job.metadata.managed_fields = None;
    job.spec = None;
}

/// Who owns which field is a third of a plan's size, and nobody here reads it.
pub fn trim_plan(plan: &mut Guarded<KnownPlan>) {
    if let Ok(plan) = &mut plan.0 {
        plan.metadata.managed_fields = None;
    }
}

/// Most of a Node's size is what nobody here reads, and what a kubelet says again every few minutes.
pub fn trim_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    let Some(status) = &mut node.status else { return };
    let conditions = status.conditions.take().map(|all| {
        let read = |condition: NodeCondition| NodeCondition {
            type_: condition.type_,
            status: condition.status,
            last_transition_time: condition.last_transition_time,
            reason: condition.reason.filter(|reason| reason == LIFECYCLE_REASON),
            ..NodeCondition::default()
        };
        all.into_iter().map(read).collect()
    });
    *status = NodeStatus { conditions, node_info: status.node_info.take(), ..NodeStatus::default() };
}

/// Whether a Node, trimmed, says something that it did not say before.
pub fn node_says_more(before: &Node, after: &Node) -> bool {
    let said = |node: &Node| {
        let ObjectMeta { uid, labels, annotations, deletion_timestamp, .. } = node.metadata.clone();
        (uid, labels, annotations, deletion_timestamp)
    };
    before.spec != after.spec || before.status != after.status || said(before) != said(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(ready: &str, heartbeat: &str, more: Value) -> Node {
        let mut value = json!({
            "metadata": { "name": "n1", "uid": "u", "resourceVersion": heartbeat },
            "status": {
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": "r", "message": heartbeat,
                    "lastHeartbeatTime": format!("2026-01-01T00:00:0{heartbeat}Z"),
                }],
                "images": [{ "names": [heartbeat] }],
            },
        });
        value["spec"] = more;
        let mut node = serde_json::from_value(value).unwrap();
        trim_node(&mut node);
        node
    }

    #[test]
    fn what_a_kubelet_says_again_is_no_news() {
        let before = node("True", "1", json!({}));
        assert!(!node_says_more(&before, &node("True", "2", json!({}))));
        assert!(node_says_more(&before, &node("False", "2", json!({}))));
        assert!(node_says_more(&before, &node("True", "2", json!({ "unschedulable": true }))));
        let mut annotated = before.clone();
        annotated.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(node_says_more(&before, &annotated));
    }
}
