//! What is remembered of mirrors: which failed a moment ago, and which gave wrong bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Wrong answers that are remembered: some images' layers from some mirrors. More is a mirror that should be removed.
const LIES_MAX: usize = 1024;

/// What is remembered of mirrors, shared by all copies of it, and lost with the process.
#[derive(Clone, Debug, Default)]
pub struct MirrorHealth(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// By mirror: until when it is left alone.
    resting: BTreeMap<String, Instant>,
    /// Mirrors and the digests for which they gave other bytes.
    lies: BTreeSet<(String, String)>,
}

impl MirrorHealth {
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
        let health = MirrorHealth::default();
        health.clone().failed("m", Duration::from_hours(1));
        health.failed("n", Duration::ZERO);
        health.lied("n", "sha256:1");
        for (mirror, digest, may) in [
            ("m", None, false),
            ("n", None, true),
            ("n", Some("sha256:1"), false),
            ("n", Some("sha256:2"), true),
            ("o", Some("sha256:1"), true),
        ] {
            assert_eq!(health.may_ask(mirror, digest), may, "{mirror} {digest:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let health = MirrorHealth::default();
        for number in 0..=LIES_MAX {
            health.lied("m", &format!("{number:05}"));
        }
        assert_eq!(health.memory().lies.len(), LIES_MAX);
        assert!(!health.may_ask("m", Some(&format!("{LIES_MAX:05}"))));
    }
}
