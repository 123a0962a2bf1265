//! Tells what a look does to many nodes alike, once for all of them, before the first of it is done.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use evenkeel_crds::ManagedOSImage;
use evenkeel_operator_core::{Action, Snapshot};
use tokio::sync::OnceCell;

use crate::{
    context::Context,
    events::{self, Alike, Recorder},
};

/// What a look has to tell.
pub struct Announcement {
    /// What was told in looks before, and not done in them, as when their time was over: it is not told again.
    before: BTreeMap<String, Alike>,
    /// By node, what is not done yet.
    left: Mutex<BTreeMap<String, Alike>>,
    told: OnceCell<()>,
}

impl Announcement {
    /// Of these actions.
    pub fn of<'a>(
        context: &Context,
        image: &str,
        snapshot: &Snapshot,
        actions: impl Iterator<Item = &'a (&'a str, &'a Action)>,
    ) -> Self {
        let alike = |(name, action): &(&str, &Action)| {
            Some(((*name).to_owned(), Alike::of(snapshot.nodes.get(*name)?, action)?))
        };
        let left = Mutex::new(actions.filter_map(alike).collect());
        let before = context.remember(image, |memory| std::mem::take(&mut memory.announced));
        Self { before, left, told: OnceCell::new() }
    }

    /// Waits until it was told, if there is something to tell of this node: an operator that is killed in between says it
    /// twice, never not at all.
    pub async fn tell(&self, recorder: &Recorder, image: &ManagedOSImage, node: &str) {
        if self.with(|left| left.contains_key(node)) {
            self.told.get_or_init(|| self.publish(recorder, image)).await;
        }
    }

    async fn publish(&self, recorder: &Recorder, image: &ManagedOSImage) {
        let news = self.with(|left| {
            events::of_many(left.iter().filter(|(name, alike)| self.before.get(*name) != Some(alike)))
        });
        events::publish(recorder, image, &news).await;
    }

    /// Takes note that what was told of a node is done.
    pub fn done(&self, node: &str) {
        self.with(|left| left.remove(node));
    }

    /// Remembers what was told and not done.
    pub fn remember(&self, context: &Context, image: &str) {
        let told = self.told.initialized();
        let left = self.with(std::mem::take).into_iter();
        let announced = left.filter(|(name, alike)| told || self.before.get(name) == Some(alike)).collect();
        context.remember(image, |memory| memory.announced = announced);
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Alike>) -> T) -> T {
        // Every change is one call: a panic in between leaves the map whole.
        change(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
