//! Looks at the cluster all the time and keeps what the report needs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use evenkeel_crds::{ManagedOSImage, NodePlan};
use futures::StreamExt as _;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::task::AbortHandle;

use crate::{progress, wait};

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// By name of the node.
    pub nodes: BTreeMap<String, NodeSeen>,
    /// The image object, once there is one.
    pub image: Option<ManagedOSImage>,
    /// Replicas of the workload that are available now.
    pub available: Option<i32>,
    /// The lowest that this number has been since both were there.
    pub lowest_available: Option<i32>,
}

/// What was seen of one node.
#[derive(Debug, Default)]
pub struct NodeSeen {
    /// The kubelet's boot ID.
    pub boot_id: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Its plan.
    pub plan: Option<NodePlan>,
    /// When it was cordoned, and under which boot ID.
    out_since: Option<(Instant, String)>,
    /// Seconds from the cordon to Ready after a reboot, of the last time.
    pub seconds_out: Option<f64>,
}

/// The watch. It ends when this is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<AbortHandle>,
}

impl Watch {
    /// Starts to look.
    pub fn start(client: &Client, workload: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut watch = Self { seen, tasks: Vec::new() };
        let everything = watcher::Config::default;
        let fields = format!("metadata.name={workload}");
        watch.follow(Api::<Node>::all(client.clone()), everything(), take_node);
        watch.follow(Api::<NodePlan>::all(client.clone()), everything(), take_plan);
        watch.follow(Api::<ManagedOSImage>::all(client.clone()), everything(), take_image);
        watch.follow(
            Api::<Deployment>::default_namespaced(client.clone()),
            everything().fields(&fields),
            take_workload,
        );
        watch
    }

    /// What was seen until now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    fn follow<K>(&mut self, api: Api<K>, config: watcher::Config, take: fn(&mut Seen, &K))
    where
        K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    {
        let seen = self.seen.clone();
        let task = tokio::spawn(async move {
            let stream = watcher(api, config).default_backoff().applied_objects();
            tokio::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(object) => take(&mut lock(&seen), &object),
                    Err(error) => tracing::debug!(%error, "a watch broke; trying again"),
                }
            }
        });
        self.tasks.push(task.abort_handle());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What one task wrote before it panicked is still what was seen.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_node(seen: &mut Seen, object: &Node) {
    let name = object.name_any();
    let node = seen.nodes.entry(name.clone()).or_default();
    let info = object.status.as_ref().and_then(|status| status.node_info.as_ref());
    let boot_id = info.map(|info| info.boot_id.clone()).unwrap_or_default();
    let cordoned = object.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let ready = wait::ready(object);
    if cordoned && !node.cordoned {
        progress::step(&format!("  {name}: cordoned"));
        node.out_since = Some((Instant::now(), boot_id.clone()));
    }
    if !cordoned && node.cordoned {
        progress::step(&format!("  {name}: uncordoned"));
    }
    if ready != node.ready {
        progress::step(&format!("  {name}: {}", if ready { "Ready" } else { "not Ready" }));
    }
    if let Some((since, before)) = &node.out_since
        && ready
        && *before != boot_id
        // A quick reboot is over before anybody takes the node for not Ready.
        && (!node.ready || node.boot_id != boot_id)
    {
        // Ready on a trial that goes back is followed by Ready on the old slot.
        node.seconds_out = Some(since.elapsed().as_secs_f64());
    }
    if !cordoned {
        node.out_since = None;
    }
    (node.boot_id, node.cordoned, node.ready) = (boot_id, cordoned, ready);
}

fn take_plan(seen: &mut Seen, plan: &NodePlan) {
    let name = plan.name_any();
    let node = seen.nodes.entry(name.clone()).or_default();
    let line = |plan: &NodePlan| {
        let status = plan.status.clone().unwrap_or_default();
        let mut line = format!("{:?}", status.phase);
        if let Some(progress) = status.progress.filter(|progress| progress.bytes_total > 0) {
            let percent = progress.bytes_done * 100 / progress.bytes_total;
            let (rate, total) = (progress.bytes_per_second / 1_000_000, progress.bytes_total / 1_000_000);
            line = format!("{line} {percent} % of {total} MB, {rate} MB/s");
        }
        if let Some(error) = status.error {
            line = format!("{line} ({}: {})", error.reason, error.message);
        }
        if let Some(back) = status.rolled_back {
            line = format!("{line} ({:?}: {})", back.cause, back.message);
        }
        line
    };
    let now = line(plan);
    if node.plan.as_ref().map(line) != Some(now.clone()) {
        progress::step(&format!("  {name}: {now}"));
    }
    node.plan = Some(plan.clone());
}

fn take_image(seen: &mut Seen, image: &ManagedOSImage) {
    let summary = |image: &ManagedOSImage| image.status.as_ref().and_then(|status| status.summary.clone());
    let now = summary(image);
    if now.is_some() && now != seen.image.as_ref().and_then(summary) {
        progress::step(&format!("  {}: {}", image.name_any(), now.unwrap_or_default()));
    }
    seen.image = Some(image.clone());
}

fn take_workload(seen: &mut Seen, workload: &Deployment) {
    let wanted = workload.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = workload.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    if seen.available != Some(available) {
        progress::step(&format!("  workload: {available} of {wanted} replicas available"));
    }
    seen.available = Some(available);
    if let Some(lowest) = &mut seen.lowest_available {
        *lowest = available.min(*lowest);
    } else if available >= wanted {
        seen.lowest_available = Some(available);
    }
}
