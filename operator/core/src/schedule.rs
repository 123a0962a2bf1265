//! When nodes may be started or staged: windows, less exclusions.

mod cron;

pub use cron::{Cron, CronError};

use evenkeel_crds::rollout::{Exclusion, Window};
use jiff::{
    SignedDuration, Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

/// How many windows in a row are followed. A row that is longer is taken to end there: it is looked at again then.
const ROW_MAX: usize = 32;
/// How many openings are looked at for one that is long enough: those of a month, when there is one each night.
const OPENINGS_MAX: usize = 31;

/// Why a schedule cannot be followed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The beginning cannot be read.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// There is no such zone.
    #[error("`{0}` is no IANA time zone that this operator knows")]
    Zone(String),
    /// The exclusion says neither once nor again and again.
    #[error("an exclusion needs either a window, or from and until")]
    Exclusion,
}

/// When something may be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    windows: Vec<Span>,
    exclusions: Vec<(Span, String)>,
}

/// Whether something may be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It may, until then; without an end if none is known.
    Open(Option<Timestamp>),
    /// It may not, for this reason, until then; without a next time if none is known.
    Closed {
        /// The exclusion's reason, or nothing when it is outside the windows.
        because: Option<String>,
        /// When it may be done again.
        next: Option<Timestamp>,
    },
}

/// One stretch of time, or one that comes again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Span {
    Once { from: Timestamp, until: Timestamp },
    Again { cron: Cron, zone: TimeZone, length: SignedDuration },
}

impl Span {
    fn again(window: &Window) -> Result<Self, ScheduleError> {
        // The bundled zones: what is decided must not depend on the files of the machine.
        let zone = TimeZoneDatabase::bundled()
            .get(&window.time_zone)
            .map_err(|_| ScheduleError::Zone(window.time_zone.clone()))?;
        let length = SignedDuration::from_secs(window.duration_seconds.max(1));
        Ok(Self::Again { cron: window.cron.parse()?, zone, length })
    }

    fn excluded(exclusion: &Exclusion) -> Result<Self, ScheduleError> {
        match (&exclusion.window, exclusion.from, exclusion.until) {
            (Some(window), None, None) => Self::again(window),
            (None, Some(from), Some(until)) => Ok(Self::Once { from: from.0, until: until.0 }),
            _ => Err(ScheduleError::Exclusion),
        }
    }

    /// The end of an occurrence that holds at `at`.
    fn end(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once { from, until } => (*from <= at && at < *until).then_some(*until),
            Self::Again { cron, zone, length } => {
                let begins = cron.next(at.checked_sub(*length).ok()?, zone)?;
                (begins <= at).then(|| begins.saturating_add(*length).unwrap_or(Timestamp::MAX))
            }
        }
    }

    /// The next beginning after `at`.
    fn next(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once { from, .. } => (at < *from).then_some(*from),
            Self::Again { cron, zone, .. } => cron.next(at, zone),
        }
    }
}

/// When spans that follow each other or overlap have all ended.
fn covered(spans: &[&Span], at: Timestamp) -> Option<Timestamp> {
    let mut end = at;
    for _ in 0..ROW_MAX {
        match spans.iter().filter_map(|span| span.end(end)).max() {
            Some(later) => end = later,
            None => break,
        }
    }
    (end > at).then_some(end)
}

impl Schedule {
    /// Checks and keeps windows and exclusions.
    pub fn new(windows: &[Window], exclusions: &[Exclusion]) -> Result<Self, ScheduleError> {
        let excluded = |exclusion: &Exclusion| Ok((Span::excluded(exclusion)?, exclusion.reason.clone()));
        Ok(Self {
            windows: windows.iter().map(Span::again).collect::<Result<_, _>>()?,
            exclusions: exclusions.iter().map(excluded).collect::<Result<_, ScheduleError>>()?,
        })
    }

    /// Whether it is open at `at`.
    pub fn at(&self, at: Timestamp) -> Opening {
        let excluded = self.exclusions.iter().find(|(span, _)| span.end(at).is_some());
        if let Some((_, reason)) = excluded {
            return Opening::Closed { because: Some(reason.clone()), next: self.next_opening(at) };
        }
        let windows: Vec<&Span> = self.windows.iter().collect();
        let end = covered(&windows, at);
        if end.is_none() && !self.windows.is_empty() {
            return Opening::Closed { because: None, next: self.next_opening(at) };
        }
        let exclusion = self.exclusions.iter().filter_map(|(span, _)| span.next(at)).min();
        Opening::Open([end, exclusion].into_iter().flatten().min())
    }

    /// The next opening after now at which something that takes so long fits in; nothing if it does not fit into any of
    /// the next few.
    pub fn next_fit(&self, now: Timestamp, takes: SignedDuration) -> Option<Timestamp> {
        let mut at = match self.at(now) {
            Opening::Open(until) => until?,
            Opening::Closed { .. } => now,
        };
        for _ in 0..OPENINGS_MAX {
            let opens = self.next_opening(at)?;
            match self.at(opens) {
                Opening::Open(Some(until)) if until.duration_since(opens) < takes => at = until,
                _ => return Some(opens),
            }
        }
        None
    }

    /// The first time from `at` on at which it is open.
    fn next_opening(&self, mut at: Timestamp) -> Option<Timestamp> {
        let excluded: Vec<&Span> = self.exclusions.iter().map(|(span, _)| span).collect();
        for _ in 0..ROW_MAX {
            if let Some(end) = covered(&excluded, at) {
                at = end;
            } else if self.windows.is_empty() || self.windows.iter().any(|window| window.end(at).is_some()) {
                return Some(at);
            } else {
                at = self.windows.iter().filter_map(|window| window.next(at)).min()?;
            }
        }
        None
    }
}
