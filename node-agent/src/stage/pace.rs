//! A bound on what is taken from registries in a second.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Keeps a rate; what was not used for a while is not made up for.
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    due: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<i64>) -> Self {
        let rate = bytes_per_second.and_then(|rate| u64::try_from(rate).ok());
        Self { bytes_per_second: rate.filter(|rate| *rate > 0), due: Instant::now() }
    }

    /// Whether there is a bound.
    pub(super) fn is_bounded(&self) -> bool {
        self.bytes_per_second.is_some()
    }

    /// Waits as long as these bytes may take.
    pub(super) async fn keep(&mut self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let nanoseconds = bytes as u128 * Duration::from_secs(1).as_nanos() / u128::from(rate);
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.due = self.due.max(Instant::now()) + time;
        sleep_until(self.due).await;
    }
}
