//! Writes events. Of each it remembers little more than its name, so that one that is told again is counted and not written
//! anew: a rollout over thousands of nodes tells thousands of them within the time in which that may happen.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, MicroTime},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::Told;

/// Events of objects that are in no namespace are kept in this one.
const NAMESPACE: &str = "default";
/// Who tells.
const CONTROLLER: &str = "evenkeel-operator";
/// What is told again within this time is the same event.
const AGAIN: SignedDuration = SignedDuration::from_mins(6);

/// Writes events.
pub struct Recorder {
    events: Api<Event>,
    instance: String,
    /// By what was told of what.
    told: Mutex<Lately>,
    hasher: RandomState,
}

/// An event that was written.
#[derive(Clone, Copy)]
struct Before {
    /// When it was first told: its name is made of that.
    first: Timestamp,
    last: Timestamp,
    count: i32,
}

/// What was told of late.
#[derive(Default)]
struct Lately(HashMap<u64, Before>);

impl Lately {
    /// The event, counted once more, if it was told a moment ago; what was told long ago is forgotten.
    fn again(&mut self, key: u64, now: Timestamp) -> Option<Before> {
        self.0.retain(|_, before| now.duration_since(before.last) < AGAIN);
        let before = self.0.get_mut(&key)?;
        (before.last, before.count) = (now, before.count + 1);
        Some(*before)
    }

    fn first(&mut self, key: u64, now: Timestamp) {
        self.0.insert(key, Before { first: now, last: now, count: 1 });
    }
}

impl Recorder {
    /// For this replica.
    pub fn new(client: Client, instance: String) -> Self {
        let events = Api::namespaced(client, NAMESPACE);
        Self { events, instance, told: Mutex::default(), hasher: RandomState::new() }
    }

    /// Tells, or counts what was told a moment ago.
    pub(super) async fn tell(&self, object: &ObjectReference, told: &Told) -> Result<(), kube::Error> {
        let key = self.hasher.hash_one((&object.uid, told.warning, &told.reason, &told.note));
        let now = Timestamp::now();
        let again = self.told().again(key, now);
        if let Some(Before { first, last, count }) = again {
            let series = EventSeries { count, last_observed_time: MicroTime(last) };
            let patch = Patch::Merge(json!({ "series": series }));
            self.events.patch(&name(object, first), &PatchParams::default(), &patch).await?;
        } else {
            self.events.create(&PostParams::default(), &self.event(object, told, now)).await?;
            self.told().first(key, now);
        }
        Ok(())
    }

    fn event(&self, object: &ObjectReference, told: &Told, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name(object, now)),
                namespace: Some(NAMESPACE.to_owned()),
                // Nobody asks who owns which field of an event.
                managed_fields: Some(vec![ManagedFieldsEntry::default()]),
                ..ObjectMeta::default()
            },
            action: Some(told.reason.clone()),
            event_time: Some(MicroTime(now)),
            note: Some(told.note.clone()),
            reason: Some(told.reason.clone()),
            regarding: Some(object.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if told.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }

    fn told(&self) -> MutexGuard<'_, Lately> {
        // Every change is one call: a panic in between leaves the map whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(object: &ObjectReference, first: Timestamp) -> String {
    format!("{}.{:x}", object.name.as_deref().unwrap_or(CONTROLLER), first.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_again_is_counted_and_what_is_old_is_new() {
        let (mut lately, begin) = (Lately::default(), Timestamp::UNIX_EPOCH);
        assert!(lately.again(1, begin).is_none());
        lately.first(1, begin);
        let soon = begin + SignedDuration::from_mins(5);
        let counted = lately.again(1, soon).map(|before| (before.first, before.last, before.count));
        assert_eq!(counted, Some((begin, soon, 2)), "the same event, by the name of its first time");
        assert!(lately.again(2, soon).is_none());
        assert!(lately.again(1, soon + AGAIN).is_none());
        assert!(lately.0.is_empty(), "nothing is kept for ever");
    }
}
