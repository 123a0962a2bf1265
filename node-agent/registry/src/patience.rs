//! How failures are borne: by waiting longer each time, or for as long as the registry asks.

use std::time::{Duration, SystemTime};

use crate::{Limits, RegistryError};

/// Attempts before a failure is told; 0.5 + 1 + 2 = 3.5 s at a registry that cannot be reached, 2 + 4 + 8 = 14 s at one
/// that is busy. Whoever asks has a longer patience.
const ATTEMPTS: u32 = 4;
/// The same without one more byte of a blob that has begun: 0.5 + 1 + … + 16 = 31.5 s, in which a registry is started
/// again.
const ATTEMPTS_BEGUN: u32 = 7;

pub(crate) struct Patience<'a> {
    limits: &'a Limits,
    failures: u32,
    begun: bool,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, failures: 0, begun: false }
    }

    /// Some of what was asked for has come.
    pub(crate) fn progress(&mut self) {
        (self.failures, self.begun) = (0, true);
    }

    /// Returns when another attempt may help, or gives the error back.
    pub(crate) async fn bear(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        let attempts = if self.begun { ATTEMPTS_BEGUN } else { ATTEMPTS };
        if !error.transient() || self.failures >= attempts {
            return Err(error);
        }
        let pause = self.pause(&error);
        tracing::info!(%error, failures = self.failures, ?pause, "asking the registry again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self, error: &RegistryError) -> Duration {
        let (first, asked_for) = match error.busy() {
            Some(retry_after) => (self.limits.pause_busy, retry_after),
            None => (self.limits.pause, Duration::ZERO),
        };
        let doubled = first.saturating_mul(1 << (self.failures - 1).min(10)).min(self.limits.pause_max);
        jittered(doubled.max(asked_for.min(self.limits.retry_after_max)))
    }
}

/// Up to a quarter longer, so that many nodes do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pause + pause / 4 * (clock.subsec_micros() % 1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(retry_after: Option<u64>) -> RegistryError {
        RegistryError::Unavailable {
            repository: "r.example/os".into(),
            status: 429,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    /// Seconds that each failure is borne, until it is not.
    async fn pauses(mut patience: Patience<'_>, error: impl Fn() -> RegistryError) -> Vec<u64> {
        let mut pauses = Vec::new();
        loop {
            let before = tokio::time::Instant::now();
            if patience.bear(error()).await.is_err() {
                return pauses;
            }
            pauses.push(before.elapsed().as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_registry_is_left_alone_for_as_long_as_it_asks_within_reason() {
        // With up to a quarter on top.
        for (asked, from) in
            [(None, [2, 4, 8]), (Some(3), [3, 4, 8]), (Some(40), [40; 3]), (Some(9999), [120; 3])]
        {
            let limits = Limits::default();
            let pauses = pauses(Patience::new(&limits), || unavailable(asked)).await;
            assert_eq!(pauses.len(), 3);
            for (pause, from) in pauses.iter().zip(from) {
                assert!((from..=from + from / 4 + 1).contains(pause), "{asked:?}: {pauses:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_is_waited_for_longer_and_what_cannot_change_not_at_all() {
        let limits = Limits::default();
        let mut begun = Patience::new(&limits);
        begun.progress();
        assert_eq!(pauses(begun, || unavailable(None)).await.len(), 6);
        let missing = || RegistryError::NotFound { image: "r.example/os:1".into() };
        assert!(pauses(Patience::new(&limits), missing).await.is_empty());
        let inside =
            || RegistryError::Mirrors { said: "m: 503".into(), source: Box::new(unavailable(Some(9999))) };
        assert_eq!(pauses(Patience::new(&limits), inside).await[0] / 30, 4);
    }
}
