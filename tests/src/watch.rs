//! What a bystander sees of a fleet: every change of nodes, plans and images, and the worst that ever was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    sync::{Arc, Mutex, MutexGuard},
};

use evenkeel_crds::{
    ManagedOSImage, NodePlan,
    node_plan::{NodePlanStatus, Phase},
};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Nodes as they are.
    pub nodes: BTreeMap<String, Node>,
    /// Plans as they are.
    pub plans: BTreeMap<String, NodePlan>,
    /// Images as they are.
    pub images: BTreeMap<String, ManagedOSImage>,
    /// The most nodes that were out of service at once since the last [`Watch::forget`].
    pub worst: usize,
    /// Each phase that a node's plan went through, with the plan's ID.
    pub phases: Vec<(String, String, Phase)>,
}

/// Follows a fleet until it is dropped.
pub struct Watch {
    world: Arc<Mutex<World>>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Begins to look.
    pub fn start(client: &Client) -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::<Node>(client.clone(), Arc::clone(&world), World::take_nodes));
        tasks.spawn(follow::<NodePlan>(client.clone(), Arc::clone(&world), World::take_plans));
        tasks.spawn(follow::<ManagedOSImage>(client.clone(), Arc::clone(&world), World::take_images));
        Self { world, _tasks: tasks }
    }

    /// What was seen so far.
    pub fn world(&self) -> World {
        lock(&self.world).clone()
    }

    /// Forgets the worst and the phases: something new begins.
    pub fn forget(&self) {
        let mut world = lock(&self.world);
        world.worst = 0;
        world.phases.clear();
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An object by its name; absent: it is gone.
type Change<K> = (String, Option<K>);

/// What is listed, at first and after an API server was away, is taken at once: half of it beside what was known before would be a
/// world that never was.
async fn follow<K>(client: Client, world: Arc<Mutex<World>>, take: fn(&mut World, Vec<Change<K>>))
where
    K: Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let stream = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
    pin_mut!(stream);
    let (mut known, mut listed) = (BTreeSet::new(), Vec::new());
    while let Some(event) = stream.next().await {
        let changes = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push((object.name_any(), Some(object)));
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                let there: BTreeSet<String> = listed.iter().map(|(name, _)| name.clone()).collect();
                let gone = known.difference(&there).map(|name: &String| (name.clone(), None));
                listed.drain(..).chain(gone).collect()
            }
            Ok(watcher::Event::Apply(object)) => vec![(object.name_any(), Some(object))],
            Ok(watcher::Event::Delete(object)) => vec![(object.name_any(), None)],
            // An API server that is away comes back.
            Err(_) => continue,
        };
        known.extend(changes.iter().map(|(name, _)| name.clone()));
        take(&mut lock(&world), changes);
    }
}

impl World {
    fn take_nodes(&mut self, changes: Vec<Change<Node>>) {
        put(&mut self.nodes, changes);
        self.worst = self.worst.max(self.nodes.values().filter(|node| !serves(node)).count());
    }

    fn take_plans(&mut self, changes: Vec<Change<NodePlan>>) {
        for (name, plan) in &changes {
            let Some(status) = plan.as_ref().and_then(|plan| plan.status.as_ref()) else { continue };
            let seen = (name.clone(), status.plan_id.clone().unwrap_or_default(), status.phase);
            if self.phases.iter().rev().find(|(node, ..)| node == name) != Some(&seen) {
                self.phases.push(seen);
            }
        }
        put(&mut self.plans, changes);
    }

    fn take_images(&mut self, changes: Vec<Change<ManagedOSImage>>) {
        put(&mut self.images, changes);
    }

    /// The agent's account of a node.
    pub fn status(&self, node: &str) -> Option<&NodePlanStatus> {
        self.plans.get(node)?.status.as_ref()
    }

    /// The phase of a node's plan; `Idle` without one.
    pub fn phase(&self, node: &str) -> Phase {
        self.status(node).map_or(Phase::Idle, |status| status.phase)
    }

    /// Whether a node runs this digest, kept.
    pub fn runs(&self, node: &str, digest: &str) -> bool {
        let booted = self.status(node).and_then(|status| status.booted.as_ref());
        let settled = matches!(self.phase(node), Phase::Committed | Phase::Idle);
        settled && booted.is_some_and(|booted| booted.digest == digest)
    }

    /// Whether a node takes pods.
    pub fn serves(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(serves)
    }

    /// A condition of an image: status, reason, message.
    pub fn condition(&self, image: &str, kind: &str) -> Option<(String, String, String)> {
        let status = self.images.get(image)?.status.as_ref()?;
        let condition = status.conditions.iter().find(|condition| condition.r#type == kind)?;
        let seen = format!("{:?}", condition.status);
        Some((seen, condition.reason.clone(), condition.message.clone()))
    }

    /// The line for people of an image.
    pub fn summary(&self, image: &str) -> String {
        let status = self.images.get(image).and_then(|image| image.status.as_ref());
        status.and_then(|status| status.summary.clone()).unwrap_or_default()
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, changes: Vec<Change<T>>) {
    for (name, object) in changes {
        match object {
            Some(object) => map.insert(name, object),
            None => map.remove(&name),
        };
    }
}

fn serves(node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    !cordoned
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, image) in &self.images {
            let status = image.status.as_ref().map(serde_json::to_string).transpose().unwrap_or_default();
            writeln!(f, "image {name}: {}", status.unwrap_or_default())?;
        }
        for (name, node) in &self.nodes {
            let annotations = &node.metadata.annotations;
            writeln!(f, "node {name}: serves {}, annotations {annotations:?}", serves(node))?;
        }
        for (name, plan) in &self.plans {
            let spec = serde_json::to_string(&plan.spec).unwrap_or_default();
            let status = plan.status.as_ref().map(serde_json::to_string).transpose().unwrap_or_default();
            writeln!(f, "plan {name}: {spec}\n  {}", status.unwrap_or_default())?;
        }
        for (node, plan, phase) in &self.phases {
            writeln!(f, "seen {node} {plan} {phase:?}")?;
        }
        Ok(())
    }
}
