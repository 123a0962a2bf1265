//! What the watches have shown of the cluster, and what we wrote since.
//!
//! A watch is always a little late. A decision that did not know of the last write could begin a second node's turn, so
//! the API server's answer to each write stands in for the cached object until the watch has caught up. Where no answer
//! came, the object is looked up.

mod plan;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use evenkeel_crds::{ManagedOSImage, ManagedOSVersion, names::JOB_OF};
use futures::{Stream, stream};
use k8s_openapi::api::{batch::v1::Job, core::v1::Node, storage::v1::VolumeAttachment};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

pub use plan::KnownPlan;

use crate::{
    api::{ApiError, call},
    guarded::Guarded,
    watch::{
        Reading, node_says_more, reflect, reflect_some, trim_attachment, trim_job, trim_node, trim_plan,
    },
};

/// A watch that shows nothing of a write for this long has missed it: a new list skipped an object that was made and
/// deleted meanwhile. Longer than the watch needs to notice that its connection is dead.
const CATCH_UP: Duration = Duration::from_mins(10);
/// Changes that come within this time after the last look are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// What was written to one object.
enum Write<K> {
    /// An object that the watch had not shown before.
    Made(Arc<K>),
    /// An object that the watch had shown: when it shows it no more, it is gone.
    Changed(Arc<K>),
    Deleted {
        uid: Option<String>,
    },
}

/// Objects of one kind, by name.
pub struct Kind<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    written: Arc<Mutex<Written<K>>>,
}

/// What was written and not yet shown, by name; and what the watch showed as deleted of late, by UID.
struct Written<K> {
    writes: HashMap<String, (Instant, Write<K>)>,
    gone: HashMap<String, Instant>,
    /// Objects of which it is not known whether they were written.
    unanswered: BTreeSet<String>,
}

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self { writes: HashMap::new(), gone: HashMap::new(), unanswered: BTreeSet::new() }
    }
}

impl<K: Resource> Written<K> {
    /// The watch shows that an object was deleted. One that we made a moment ago would be taken for not yet shown.
    fn ended(&mut self, object: &K) {
        let Some(uid) = object.meta().uid.as_ref() else { return };
        let ours = |write: &Write<K>| match write {
            Write::Made(ours) | Write::Changed(ours) => ours.meta().uid.as_ref() == Some(uid),
            Write::Deleted { uid: ours } => ours.as_ref() == Some(uid),
        };
        self.writes.retain(|_, (_, write)| !ours(write));
        self.gone.retain(|_, since| since.elapsed() < CATCH_UP);
        self.gone.insert(uid.clone(), Instant::now());
    }

    /// The API server's answer to a write; the watch may have been faster.
    fn wrote(&mut self, name: String, uid: Option<&String>, write: Write<K>) {
        if uid.is_none_or(|uid| !self.gone.contains_key(uid)) {
            self.writes.insert(name, (Instant::now(), write));
        }
    }
}

impl<K> Kind<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts to watch all objects of the kind, see [`crate::watch::reflect`].
    fn watch(client: &Client, changed: &Arc<Notify>, reading: &Reading<K>) -> Self {
        let written = Arc::<Mutex<Written<K>>>::default();
        let here = Arc::clone(&written);
        let ended = move |object: &K| lock(&here).ended(object);
        let config = watcher::Config::default();
        Self { store: reflect_some(Api::all(client.clone()), config, changed, reading, ended), written }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Kind<K> {
    /// Objects as `store` has them.
    pub fn new(store: Store<K>) -> Self {
        Self { store, written: Arc::default() }
    }

    /// One object.
    pub fn get(&self, name: &str) -> Option<Arc<K>> {
        let cached = self.store.get(&ObjectRef::new(name));
        newest(&mut self.written().writes, name, cached)
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        let mut written = self.written();
        let written = &mut written.writes;
        let mut all = self.store.state();
        if !written.is_empty() {
            let newest_of = |object: Arc<K>| match object.meta().name.clone() {
                Some(name) => newest(written, &name, Some(object)),
                None => Some(object),
            };
            all = all.into_iter().filter_map(newest_of).collect();
            let unseen = |name: &&String| self.store.get(&ObjectRef::new(name)).is_none();
            let made: Vec<String> = written.keys().filter(unseen).cloned().collect();
            all.extend(made.iter().filter_map(|name| newest(written, name, None)));
        }
        all.sort_unstable_by(|one, other| one.meta().name.cmp(&other.meta().name));
        all
    }

    /// Takes note that no answer came to a write.
    pub fn unanswered(&self, name: &str) {
        self.written().unanswered.insert(name.to_owned());
    }

    /// Asks the API server for all objects of which it is not known whether they were written. Nothing may be decided
    /// before: what was done and not seen would be done again, for another object.
    pub async fn look_up(&self, api: &Api<K>) -> Result<(), ApiError>
    where
        K: DeserializeOwned + Debug,
    {
        let names = self.written().unanswered.clone();
        for name in names {
            let what = format!("look up whether {name} was written");
            match call(what, api.get_opt(&name)).await? {
                Some(object) => self.wrote(object),
                None => self.forget(&name),
            }
            self.written().unanswered.remove(&name);
        }
        Ok(())
    }

    /// Takes note of the API server's answer to a write.
    pub fn wrote(&self, object: K) {
        let name = object.name_any();
        let known = self.store.get(&ObjectRef::new(&name)).is_some_and(|cached| cached.uid() == object.uid());
        let (uid, object) = (object.uid(), Arc::new(object));
        let write = if known { Write::Changed(object) } else { Write::Made(object) };
        self.written().wrote(name, uid.as_ref(), write);
    }

    /// Takes note of a deletion.
    pub fn deleted(&self, name: &str, uid: Option<String>) {
        self.written().wrote(name.to_owned(), uid.clone().as_ref(), Write::Deleted { uid });
    }

    /// Forgets what was written to an object: the API server has something else.
    pub fn forget(&self, name: &str) {
        self.written().writes.remove(name);
    }

    fn written(&self) -> MutexGuard<'_, Written<K>> {
        lock(&self.written)
    }
}

fn lock<K>(written: &Mutex<Written<K>>) -> MutexGuard<'_, Written<K>> {
    // Every change of a map is one call: a panic in between leaves it whole.
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

fn newest<K: Resource>(
    written: &mut HashMap<String, (Instant, Write<K>)>,
    name: &str,
    cached: Option<Arc<K>>,
) -> Option<Arc<K>> {
    let late = match (written.get(name), &cached) {
        (None, _) | (Some((_, Write::Deleted { .. } | Write::Changed(_))), None) => false,
        (Some((since, _)), _) if since.elapsed() > CATCH_UP => false,
        (Some((_, Write::Made(ours) | Write::Changed(ours))), Some(cached)) => {
            version(cached.as_ref()) < version(ours.as_ref())
        }
        (Some((_, Write::Made(_))), None) => true,
        (Some((_, Write::Deleted { uid })), Some(cached)) => cached.meta().uid == *uid,
    };
    if !late {
        written.remove(name);
        return cached;
    }
    match &written.get(name)?.1 {
        Write::Made(ours) | Write::Changed(ours) => Some(Arc::clone(ours)),
        Write::Deleted { .. } => None,
    }
}

/// Resource versions of one kind grow; the API server promises it.
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

/// What is seen of the cluster.
pub struct Seen {
    /// Nodes.
    pub nodes: Kind<Node>,
    /// Their plans.
    pub plans: Kind<Guarded<KnownPlan>>,
    /// Published versions.
    pub versions: Kind<Guarded<ManagedOSVersion>>,
    /// Image objects.
    pub images: Kind<Guarded<ManagedOSImage>>,
    attachments: Store<VolumeAttachment>,
    jobs: Store<Job>,
    changed: Arc<Notify>,
}

impl Seen {
    /// Starts to watch, for as long as the process lives. Jobs are watched in `namespace`, the operator's own. The image objects come from their controller's store.
    pub fn watch(client: &Client, namespace: &str, images: Store<Guarded<ManagedOSImage>>) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            nodes: Kind::watch(client, &changed, &Reading { trim: trim_node, is_news: node_says_more }),
            plans: Kind::watch(client, &changed, &Reading::trimmed(trim_plan)),
            versions: Kind::watch(client, &changed, &Reading::trimmed(|_| {})),
            images: Kind::new(images),
            // Volumes come and go with every pod of the cluster: they are looked at when a drain is.
            attachments: reflect(Api::all(client.clone()), &Arc::default(), trim_attachment),
            jobs: reflect_some(
                Api::namespaced(client.clone(), namespace),
                watcher::Config::default().labels(JOB_OF),
                &changed,
                &Reading::trimmed(trim_job),
                |_| {},
            ),
            changed,
        }
    }

    /// A cluster of which nothing was seen.
    #[cfg(test)]
    pub fn nothing() -> Self {
        use kube::runtime::reflector::store;
        Self {
            nodes: Kind::new(store().0),
            plans: Kind::new(store().0),
            versions: Kind::new(store().0),
            images: Kind::new(store().0),
            attachments: store().0,
            jobs: store().0,
            changed: Arc::default(),
        }
    }

    /// Waits until everything was listed once.
    pub async fn ready(&self) {
        // The writers live in tasks that end with the process only.
        let _ = self.nodes.store.wait_until_ready().await;
        let _ = self.plans.store.wait_until_ready().await;
        let _ = self.versions.store.wait_until_ready().await;
        let _ = self.attachments.wait_until_ready().await;
        let _ = self.jobs.wait_until_ready().await;
    }

    /// All attachments of volumes.
    pub fn attachments(&self) -> Vec<Arc<VolumeAttachment>> {
        self.attachments.state()
    }

    /// The Jobs that were made for nodes, as the watch shows them, and so without their spec.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.jobs.state()
    }

    /// Makes [`Self::changes`] say that something changed: something that no watch shows.
    pub fn stir(&self) {
        self.changed.notify_one();
    }

    /// One item for each time that something changed: the first at once, and of those that come soon after it one.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        stream::unfold((Arc::clone(&self.changed), false), |(changed, looked)| async move {
            if looked {
                tokio::time::sleep(DEBOUNCE).await;
            }
            changed.notified().await;
            Some(((), (changed, true)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(version: &str, uid: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.metadata.uid = Some(uid.into());
        node.metadata.resource_version = Some(version.into());
        node
    }

    fn seen(written: Write<Node>, age: Duration, cached: Option<Node>) -> Option<String> {
        let since =
            Instant::now().checked_sub(age).expect("the machine runs for longer than this test looks back");
        let mut map = HashMap::from([("n1".to_owned(), (since, written))]);
        newest(&mut map, "n1", cached.map(Arc::new)).and_then(|node| node.metadata.resource_version.clone())
    }

    #[test]
    fn a_write_stands_in_for_the_cache_until_the_watch_has_caught_up() {
        let ours = |version| Write::Changed(Arc::new(node(version, "u")));
        let made = |version| Write::Made(Arc::new(node(version, "u")));
        let soon = Duration::ZERO;
        assert_eq!(seen(ours("9"), soon, Some(node("8", "u"))).as_deref(), Some("9"));
        assert_eq!(seen(ours("9"), soon, Some(node("10", "u"))).as_deref(), Some("10"));
        assert_eq!(seen(made("9"), soon, None).as_deref(), Some("9"), "made, not yet shown");
        assert_eq!(seen(made("9"), CATCH_UP * 2, None), None, "made and deleted unseen");
        assert_eq!(seen(ours("9"), soon, None), None, "deleted by somebody after our change");
    }

    #[test]
    fn what_was_made_and_deleted_before_anybody_looked_is_gone() {
        let mut written = Written::default();
        let ours = node("9", "u");
        let made = || Write::Made(Arc::new(node("9", "u")));
        written.wrote("n1".into(), ours.metadata.uid.as_ref(), made());
        assert!(newest(&mut written.writes, "n1", None).is_some());
        written.ended(&node("10", "u"));
        assert!(newest(&mut written.writes, "n1", None).is_none());
        written.wrote("n1".into(), ours.metadata.uid.as_ref(), made());
        assert!(newest(&mut written.writes, "n1", None).is_none(), "the watch was faster than the answer");
    }

    #[test]
    fn a_deleted_object_is_gone_at_once_and_its_successor_is_seen() {
        let deleted = || Write::Deleted { uid: Some("old".into()) };
        assert_eq!(seen(deleted(), Duration::ZERO, Some(node("8", "old"))), None);
        assert_eq!(seen(deleted(), Duration::ZERO, Some(node("9", "new"))).as_deref(), Some("9"));
    }
}
