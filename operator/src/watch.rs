//! Watches that keep trying, and the stores that they fill.

use std::{fmt::Debug, future::ready, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::{batch::v1::Job, core::v1::Node, storage::v1::VolumeAttachment};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        utils::Backoff,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::api::with_causes;

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

/// Watches all objects of a kind, for as long as the process lives. `changed` is told of each change; `trim` drops what
/// nobody reads.
pub fn reflect<K>(api: Api<K>, changed: &Arc<Notify>, trim: fn(&mut K)) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    reflect_some(api, watcher::Config::default(), changed, trim, |_| {})
}

/// The same, for the objects that `config` selects; `ended` is told of each that was deleted, after the store.
pub fn reflect_some<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<Notify>,
    trim: fn(&mut K),
    ended: impl Fn(&K) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changed = Arc::clone(changed);
    let stream = watcher(api, config).backoff(Patience::default()).modify(trim).reflect(writer);
    tokio::spawn(stream.for_each(move |event| {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(event) => {
                if let watcher::Event::Delete(object) = &event {
                    ended(object);
                }
                changed.notify_one();
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

/// Lists of images and of field owners are most of a Node's size, and nobody here reads them.
pub fn trim_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}
