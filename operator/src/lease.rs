//! The lease that lets one replica act. Deciding is pure; the loop is in `lease/hold.rs`.

mod hold;

pub use hold::{Ended, Lease};

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What was seen of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Who holds it; nobody after it was released.
    pub holder: Option<String>,
    /// What changes with each renewal. Never compared with a clock: other machines' clocks may be wrong.
    pub renewal: String,
    /// For how long it holds without a renewal.
    pub duration: Duration,
    /// When this renewal was first seen, on this process's own clock.
    pub since: Duration,
}

/// What to do about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Take it.
    Acquire,
    /// Renew it: it is ours.
    Renew,
    /// Leave it to its holder, and look again then.
    WaitUntil(Duration),
}

/// What `me` does about a lease of which this was seen, `now` being on the same clock as [`Observed::since`].
pub fn decide(seen: Option<&Observed>, me: &str, now: Duration) -> Move {
    let Some(seen) = seen else { return Move::Acquire };
    match seen.holder.as_deref() {
        None | Some("") => Move::Acquire,
        Some(holder) if holder == me => Move::Renew,
        Some(_) if now >= seen.since + seen.duration => Move::Acquire,
        Some(_) => Move::WaitUntil(seen.since + seen.duration),
    }
}

/// Whether this process may act: it renewed the lease so short a time ago that nobody else can have it.
#[derive(Clone, Debug)]
pub struct Leadership {
    start: Instant,
    /// Milliseconds since `start` at which the last renewal was *sent*; 0 when the lease is not ours.
    renewed: Arc<AtomicU64>,
    valid: Duration,
}

impl Leadership {
    /// Not held yet; a renewal holds for `valid`.
    pub fn new(valid: Duration) -> Self {
        Self { start: Instant::now(), renewed: Arc::default(), valid }
    }

    /// Time on this process's own clock.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether this process may act.
    pub fn holds(&self) -> bool {
        let renewed = self.renewed.load(Ordering::SeqCst);
        renewed > 0 && self.now() < Duration::from_millis(renewed) + self.valid
    }

    fn renewed_at(&self, sent: Duration) {
        let millis = u64::try_from(sent.as_millis()).unwrap_or(u64::MAX).max(1);
        self.renewed.store(millis, Ordering::SeqCst);
    }

    fn give_up(&self) {
        self.renewed.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn held(holder: &str, since: u64) -> Observed {
        Observed { holder: Some(holder.into()), renewal: "r".into(), duration: S(15), since: S(since) }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken() {
        assert_eq!(decide(None, "me", S(0)), Move::Acquire);
        assert_eq!(decide(Some(&Observed { holder: None, ..held("", 0) }), "me", S(0)), Move::Acquire);
        assert_eq!(decide(Some(&held("", 0)), "me", S(0)), Move::Acquire);
    }

    #[test]
    fn ones_own_lease_is_renewed_even_when_it_ran_out() {
        assert_eq!(decide(Some(&held("me", 0)), "me", S(1)), Move::Renew);
        assert_eq!(decide(Some(&held("me", 0)), "me", S(100)), Move::Renew);
    }

    #[test]
    fn anothers_lease_is_taken_only_after_its_whole_duration_without_a_renewal() {
        assert_eq!(decide(Some(&held("other", 10)), "me", S(10)), Move::WaitUntil(S(25)));
        assert_eq!(decide(Some(&held("other", 10)), "me", S(24)), Move::WaitUntil(S(25)));
        assert_eq!(decide(Some(&held("other", 10)), "me", S(25)), Move::Acquire);
    }

    #[test]
    fn leadership_ends_by_itself() {
        let leadership = Leadership::new(Duration::from_millis(30));
        assert!(!leadership.holds());
        leadership.renewed_at(leadership.now());
        assert!(leadership.holds());
        std::thread::sleep(Duration::from_millis(40));
        assert!(!leadership.holds());
    }
}
