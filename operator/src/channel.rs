//! Channels: the operator fetches the list of versions itself, and keeps a `ManagedOSVersion` for each that it lists.

mod carried;
mod fetch;
mod look;
mod show;
mod write;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use evenkeel_crds::{
    ManagedOSVersion, ManagedOSVersionChannel,
    names::{CHANNEL, NO_LONGER_IN_SYNC},
};
use evenkeel_operator_core::channel::{Listing, sync::Existing};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        Controller,
        controller::{Action, Config},
        reflector::ObjectRef,
        watcher,
    },
};

use crate::{
    api::with_causes, context::Context, guarded::Guarded, reconcile::ReconcileError, status::Problem,
    watch::Patience,
};

/// Channels that are fetched at the same time.
const CONCURRENCY: u16 = 4;
/// Versions of a channel change together; they are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Pause after an error of the API server.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// What is remembered of a channel between two looks. All of it may be lost with the process.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// `metadata.generation` that the rest is about.
    generation: Option<i64>,
    /// What it lists, and how that was named.
    known: Option<Known>,
    /// The last failure, and how many there were in a row.
    failure: Option<(Problem, u32)>,
    /// When the list was last fetched with success.
    synced: Option<Timestamp>,
    /// When to fetch next.
    next: Option<Instant>,
}

/// A list that was fetched.
#[derive(Clone, Debug)]
struct Known {
    listing: Listing,
    /// `sha256:…` of it.
    digest: String,
    /// Its entity tag.
    etag: Option<String>,
}

/// What every look at a channel needs.
struct Channels {
    context: Arc<Context>,
    memories: Mutex<HashMap<String, Memory>>,
}

impl Channels {
    fn memory(&self, name: &str) -> Memory {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }

    fn remember(&self, name: &str, memory: Memory) {
        // One insertion: a panic elsewhere leaves nothing half done.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), memory);
    }

    fn forget(&self, name: &str) {
        self.context.metrics.channels().forget(name);
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Looks after all channels until `stop` is ready.
pub async fn follow(context: Arc<Context>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let client = context.clients.main.clone();
    let channels: Api<Guarded<ManagedOSVersionChannel>> = Api::all(client.clone());
    let versions: Api<Guarded<ManagedOSVersion>> = Api::all(client);
    let kept = watcher::Config::default().labels(CHANNEL);
    let owner = |version: Guarded<ManagedOSVersion>| {
        version.labels().get(CHANNEL).map(|name| ObjectRef::<Guarded<ManagedOSVersionChannel>>::new(name))
    };
    let state = Arc::new(Channels { context, memories: Mutex::default() });
    Controller::new(channels, watcher::Config::default())
        .watches(versions, kept, owner)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .trigger_backoff(Patience::default())
        .graceful_shutdown_on(stop)
        .run(look::look, |object, error, state| after_error(&object.name_any(), error, &state), state)
        .for_each(|_| std::future::ready(()))
        .await;
}

fn after_error(name: &str, error: &ReconcileError, channels: &Channels) -> Action {
    if let ReconcileError::Api(error) = error {
        channels.context.metrics.api_failed(error.reason());
        if error.is_stale() {
            tracing::debug!(channel = name, %error, "looking again");
            return Action::requeue(DEBOUNCE);
        }
    }
    tracing::warn!(channel = name, error = with_causes(error), "a look at a channel failed; trying again");
    Action::requeue(ERROR_PAUSE)
}

/// All versions that are there, as decisions see them.
fn existing(context: &Context) -> Vec<Existing> {
    let all = context.seen.versions.all();
    all.iter()
        .map(|version| Existing {
            name: version.name_any(),
            channel: version.labels().get(CHANNEL).cloned(),
            retired: version.labels().contains_key(NO_LONGER_IN_SYNC),
            spec: version.0.as_ref().ok().map(|version| version.spec.clone()),
        })
        .collect()
}
