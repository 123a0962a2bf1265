//! How failures are borne: by waiting longer each time, and once by showing again who we are.

use std::{
    mem,
    time::{Duration, SystemTime},
};

use crate::RegistryError;

/// Attempts before a failure is told; 0.5 + 1 + 2 = 3.5 s at a registry that cannot be reached, 2 + 4 + 8 = 14 s at one
/// that is busy. Whoever asks has a longer patience.
const ATTEMPTS: u32 = 4;
/// The same without one more byte of a blob that has begun: 0.5 + 1 + … + 16 = 31.5 s, in which a registry is started
/// again.
const ATTEMPTS_BEGUN: u32 = 7;
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A registry that is busy may say how long it wants to be left alone, but the library does not tell us.
const PAUSE_MIN_BUSY: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(16);

#[derive(Default)]
pub(crate) struct Patience {
    failures: u32,
    refused: bool,
    begun: bool,
}

impl Patience {
    /// Some of what was asked for has come.
    pub(crate) fn progress(&mut self) {
        *self = Self { begun: true, ..Self::default() };
    }

    /// Returns when another attempt may help, or gives the error back.
    pub(crate) async fn bear(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        // A token ran out, or credentials were renewed: the next client has new ones.
        if matches!(error, RegistryError::Unauthorized { .. }) && !mem::replace(&mut self.refused, true) {
            return Ok(());
        }
        self.failures += 1;
        let attempts = if self.begun { ATTEMPTS_BEGUN } else { ATTEMPTS };
        if !error.transient() || self.failures >= attempts {
            return Err(error);
        }
        tracing::info!(%error, failures = self.failures, "asking the registry again");
        let busy = matches!(error, RegistryError::Unavailable { .. });
        tokio::time::sleep(self.pause(if busy { PAUSE_MIN_BUSY } else { PAUSE_MIN })).await;
        Ok(())
    }

    /// Twice as long each time, and not in step with the other nodes.
    fn pause(&self, first: Duration) -> Duration {
        let doubled = first.saturating_mul(1 << (self.failures - 1).min(10)).min(PAUSE_MAX);
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        doubled + doubled / 4 * (clock.subsec_micros() % 1000) / 1000
    }
}
