//! What is remembered of registries and mirrors: who failed a moment ago, who gave wrong bytes, and whose parts do not
//! fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Wrong answers that are remembered: some images' layers from some mirrors. More is a mirror that should be removed.
const LIES_MAX: usize = 1024;

/// What is remembered of registries and mirrors, shared by all copies of it, and lost with the process.
#[derive(Clone, Debug, Default)]
pub struct Reputation(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// By mirror: until when it is left alone.
    resting: BTreeMap<String, Instant>,
    /// Mirrors and the digests for which they gave other bytes.
    lies: BTreeSet<(String, String)>,
    /// Places whose parts did not make a whole.
    wrong_parts: BTreeSet<String>,
}

impl Reputation {
    /// The mirror failed, and is left alone for a while.
    pub(crate) fn failed(&self, mirror: &str, rest: Duration) {
        self.memory().resting.insert(mirror.to_owned(), Instant::now() + rest);
    }

    /// The mirror gave other bytes than the digest names.
    pub(crate) fn lied(&self, mirror: &str, digest: &str) {
        let mut memory = self.memory();
        while memory.lies.len() >= LIES_MAX {
            memory.lies.pop_first();
        }
        memory.lies.insert((mirror.to_owned(), digest.to_owned()));
    }

    /// A blob that was put together from the place's parts was not what it should be.
    pub(crate) fn gave_wrong_parts(&self, place: &str) {
        self.memory().wrong_parts.insert(place.to_owned());
    }

    /// Whether parts of blobs may be asked for.
    pub(crate) fn may_ask_for_parts(&self, place: &str) -> bool {
        !self.memory().wrong_parts.contains(place)
    }

    /// Whether a mirror may be asked; `digest` is what for, if it can be checked.
    pub(crate) fn may_ask(&self, mirror: &str, digest: Option<&str>) -> bool {
        let memory = self.memory();
        let rested = memory.resting.get(mirror).is_none_or(|until| *until <= Instant::now());
        let lied = |digest: &str| memory.lies.contains(&(mirror.to_owned(), digest.to_owned()));
        rested && !digest.is_some_and(lied)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is one insertion or removal, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_rests_after_a_failure_and_is_not_asked_twice_for_what_it_got_wrong() {
        let known = Reputation::default();
        known.clone().failed("m", Duration::from_hours(1));
        known.failed("n", Duration::ZERO);
        known.lied("n", "sha256:1");
        known.gave_wrong_parts("o");
        assert!(known.may_ask_for_parts("n") && !known.may_ask_for_parts("o"));
        for (mirror, digest, may) in [
            ("m", None, false),
            ("n", None, true),
            ("n", Some("sha256:1"), false),
            ("n", Some("sha256:2"), true),
            ("o", Some("sha256:1"), true),
        ] {
            assert_eq!(known.may_ask(mirror, digest), may, "{mirror} {digest:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let known = Reputation::default();
        for number in 0..=LIES_MAX {
            known.lied("m", &format!("{number:05}"));
        }
        assert_eq!(known.memory().lies.len(), LIES_MAX);
        assert!(!known.may_ask("m", Some(&format!("{LIES_MAX:05}"))));
    }
}
