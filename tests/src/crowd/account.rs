//! When what happened, as the machines see it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// When what happened.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// When a machine first saw an order.
    pub first_order: Option<Instant>,
    /// When a machine last kept an image.
    pub last_committed: Option<Instant>,
    /// Machines that kept the image.
    pub committed: usize,
    /// From the API server's answer to the report that makes a node healthy on trial, until its machine sees that the operator
    /// has decided on it.
    pub reactions: Vec<Duration>,
    /// What went wrong, by node.
    pub troubles: BTreeMap<String, String>,
}

/// The account that all machines write to.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<Mutex<Times>>);

impl Account {
    /// What happened so far.
    pub fn times(&self) -> Times {
        self.change(|times| times.clone())
    }

    pub(super) fn ordered(&self) {
        self.change(|times| times.first_order = times.first_order.or_else(|| Some(Instant::now())));
    }

    pub(super) fn committed(&self) {
        self.change(|times| {
            times.committed += 1;
            times.last_committed = Some(Instant::now());
        });
    }

    pub(super) fn reacted(&self, after: Duration) {
        self.change(|times| times.reactions.push(after));
    }

    pub(super) fn trouble(&self, node: &str, what: String) {
        self.change(|times| times.troubles.insert(node.to_owned(), what));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Times) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
