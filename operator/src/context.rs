//! What every look at an image object needs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use evenkeel_operator_core::NodeState;
use evenkeel_registry::{RegistryOptions, Resolved};

use crate::{
    api::Clients,
    drain::OwnPod,
    events::{Alike, Recorder},
    gates::Book,
    lease::Leadership,
    lifecycle::Publishing,
    metrics::Metrics,
    resolve::{Failure, Question},
    seen::Seen,
};

/// How long a Job that the API server refused counts as failed before it is tried again.
const UNMADE: Duration = Duration::from_mins(1);
/// Pods that were asked to leave are not asked again within this time, however often their node is looked at.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What is remembered of an image object between two looks.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Its generation at the last look; a change may be one of what others have.
    pub generation: Option<i64>,
    /// Where its nodes were, for events.
    pub nodes: Option<BTreeMap<String, NodeState>>,
    /// What was told of nodes and is not done yet.
    pub announced: BTreeMap<String, Alike>,
    /// When its status was last written.
    pub shown: Option<Instant>,
    /// What the registry is being asked.
    pub asking: Option<Question>,
    /// What the registry answered, until it is kept in the status.
    pub answer: Option<(Question, Resolved)>,
    /// The last answer of the registry, if it was a refusal.
    pub failure: Option<Failure>,
    /// Looks in a row that ended in an error.
    pub errors: u32,
}

/// What every look at an image object needs.
pub struct Context {
    /// The API server.
    pub clients: Clients,
    /// What the watches show.
    pub seen: Arc<Seen>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// For events.
    pub recorder: Recorder,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// How registries are spoken to, whatever the image.
    pub registry: RegistryOptions,
    /// The pod that this process runs in.
    pub own_pod: OwnPod,
    /// The node that this process runs on, if it is known.
    pub own_node: Option<String>,
    /// What is remembered.
    pub memories: Memories,
    /// What is known of gates.
    pub book: Book,
    /// Whether Nodes get lifecycle conditions.
    pub lifecycle: Publishing,
}

/// What is remembered between two looks. All of it may be lost with the process.
#[derive(Debug, Default)]
pub struct Memories {
    /// By image object.
    images: Mutex<HashMap<String, Memory>>,
    /// By node: what the last eviction that was refused there said.
    refused: Mutex<HashMap<String, String>>,
    /// By node: when its pods were last asked to leave.
    asked: Mutex<HashMap<String, Instant>>,
    /// By name of a Job that could not be made: when, and why.
    unmade: Mutex<HashMap<String, (Instant, String)>>,
}

impl Context {
    /// What is remembered of an image object.
    pub fn memory(&self, image: &str) -> Memory {
        lock(&self.memories.images).get(image).cloned().unwrap_or_default()
    }

    /// Remembers something of an image object.
    pub fn remember<T>(&self, image: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(lock(&self.memories.images).entry(image.to_owned()).or_default())
    }

    /// Forgets an image object that is gone. What it had is free for others.
    pub fn forget(&self, image: &str) {
        if lock(&self.memories.images).remove(image).is_some() {
            self.seen.stir();
        }
    }

    /// Takes note of an image object's generation. Others look again when it is a new one: it may select other nodes.
    pub fn note_generation(&self, image: &str, generation: Option<i64>) {
        if self.remember(image, |memory| std::mem::replace(&mut memory.generation, generation)) != generation
        {
            self.seen.stir();
        }
    }

    /// What the last eviction that was refused on a node said.
    pub fn refused(&self, node: &str) -> Option<String> {
        lock(&self.memories.refused).get(node).cloned()
    }

    /// Whether the pods of a node may be asked to leave: then they are, now.
    pub fn may_ask(&self, node: &str) -> bool {
        let mut asked = lock(&self.memories.asked);
        asked.retain(|_, at| at.elapsed() < ASK_AGAIN);
        let may = !asked.contains_key(node);
        if may {
            asked.insert(node.to_owned(), Instant::now());
        }
        may
    }

    /// Remembers what a round of evictions on a node came to.
    pub fn evicted(&self, node: &str, refused: Option<String>) {
        let mut all = lock(&self.memories.refused);
        match refused {
            Some(by) => all.insert(node.to_owned(), by),
            None => all.remove(node),
        };
    }
}

impl Context {
    /// Remembers that a Job could not be made.
    pub fn job_unmade(&self, name: &str, why: String) {
        lock(&self.memories.unmade).insert(name.to_owned(), (Instant::now(), why));
    }

    /// Why a Job could not be made, if that was not long ago: then it is tried again.
    pub fn why_unmade(&self, name: &str) -> Option<String> {
        let mut all = lock(&self.memories.unmade);
        all.retain(|_, (at, _)| at.elapsed() < UNMADE);
        all.get(name).map(|(_, why)| why.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one call: a panic in between leaves the map whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
