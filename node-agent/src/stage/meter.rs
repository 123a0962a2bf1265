//! How far staging is, for whoever looks; and the way to stop it.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_crds::node_plan::{Progress, StagingCost};
use tokio::sync::watch;

use crate::slot::WriteCost;

/// The rate is that of this time: long enough to be steady, short enough to tell when a link has become slow.
const WINDOW: Duration = Duration::from_secs(10);
/// What would take longer than a day stands still, or has only begun: that is no estimate.
const ESTIMATE_MAX: u64 = 24 * 3600;
/// Looks that are remembered; whoever looks more often gets the rate of a shorter time.
const LOOKS_MAX: usize = 64;

/// How far it is, for whoever looks; and the way to stop it.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    pub(super) total: AtomicU64,
    pub(super) downloaded: AtomicU64,
    pub(super) applied: AtomicU64,
    /// Bytes of files that were taken from slots of this disk.
    pub(super) copied: AtomicU64,
    /// When somebody looked, and how far it was.
    looks: Mutex<VecDeque<(Instant, u64)>>,
    stop: watch::Sender<bool>,
}

impl Default for Meter {
    fn default() -> Self {
        let started = Instant::now();
        Self {
            started,
            total: AtomicU64::new(0),
            downloaded: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            looks: Mutex::new(VecDeque::from([(started, 0)])),
            stop: watch::Sender::new(false),
        }
    }
}

impl Meter {
    /// How far it is now.
    pub fn progress(&self) -> Progress {
        let (now, done) = (Instant::now(), self.applied.load(Ordering::Relaxed));
        let total = self.total.load(Ordering::Relaxed);
        let rate = self.rate(now, done);
        let left = total.saturating_sub(done).checked_div(rate);
        let seconds_left = left.filter(|seconds| total > 0 && *seconds <= ESTIMATE_MAX).map(signed);
        Progress {
            bytes_done: signed(done),
            bytes_total: signed(total),
            bytes_per_second: signed(rate),
            seconds_left,
        }
    }

    fn rate(&self, now: Instant, done: u64) -> u64 {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push_back((now, done));
        // The oldest stays that is not older than the window, or the one before it.
        while looks.len() > LOOKS_MAX || looks.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            looks.pop_front();
        }
        let (since, before) = looks.front().copied().unwrap_or((now, done));
        let milliseconds = (now - since).as_millis().max(1);
        u64::try_from(u128::from(done.saturating_sub(before)) * 1000 / milliseconds).unwrap_or(u64::MAX)
    }

    /// Asks staging to end soon, with [`super::StageError::Stopped`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) async fn stopped(&self) {
        // The sender lives as long as this does, so that waiting for it cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(super) fn cost(&self, write: WriteCost) -> StagingCost {
        StagingCost {
            bytes_downloaded: signed(self.downloaded.load(Ordering::Relaxed)),
            bytes_copied: signed(write.copied + self.copied.load(Ordering::Relaxed)),
            bytes_written: signed(write.written),
            bytes_skipped: signed(write.skipped),
            milliseconds: i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX),
            ..StagingCost::default()
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_hardly_begun_has_no_estimate() {
        let meter = Meter::default();
        meter.total.store(1 << 30, Ordering::Relaxed);
        meter.applied.store(1 << 20, Ordering::Relaxed);
        let hour_ago = meter.started.checked_sub(Duration::from_hours(1)).unwrap();
        meter.looks.lock().unwrap().push_front((hour_ago, (1 << 20) - 36_000));
        assert_eq!(meter.progress().seconds_left, None, "ten bytes in a second");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let meter = Meter::default();
        meter.total.store(1200, Ordering::Relaxed);
        let at = |seconds| meter.started + Duration::from_secs(seconds);
        assert_eq!(meter.rate(at(2), 1000), 500);
        assert_eq!(meter.rate(at(9), 1000), 111, "the beginning is in the window still");
        assert_eq!(meter.rate(at(13), 1001), 0, "two seconds after the beginning, nothing came for eleven");
        assert_eq!(meter.rate(at(21), 1101), 8);
    }
}
