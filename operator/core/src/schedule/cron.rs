//! When something begins again and again: the five fields of cron, in a time zone.
//!
//! The fields are those of crontab(5): minute, hour, day of month, month, day of week, with lists, ranges, steps and names;
//! when both kinds of day are restricted, either may match. Clocks that are set: a beginning at a fixed hour that is
//! skipped is when the clock is set, and one that comes twice is the first; with any hour (`*`) the clock on the wall
//! decides, as it goes.

use std::str::FromStr;

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time},
    tz::{AmbiguousOffset, TimeZone},
};

/// Days until the next beginning, at most: 29 February may be eight years away (1896 to 1904, 2096 to 2104).
const DAYS_MAX: usize = 8 * 366 + 1;

/// A cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

/// Why a text is no cron expression.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CronError {
    /// It does not have five fields.
    #[error("`{0}` has to have five fields: minute, hour, day of month, month, day of week")]
    Fields(String),
    /// A field cannot be read.
    #[error("`{value}` is no {field} (from {first} to {last})")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// The least that it may say.
        first: u8,
        /// The most that it may say.
        last: u8,
    },
    /// No day is ever like that.
    #[error("`{0}` never comes")]
    Never(String),
}

/// Values of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    /// One bit for each value, up to 59.
    bits: u64,
    /// Whether the field begins with `*`.
    any: bool,
}

impl Set {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

struct Field {
    name: &'static str,
    first: u8,
    last: u8,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", first: 0, last: 59, names: &[] };
const HOUR: Field = Field { name: "hour", first: 0, last: 23, names: &[] };
const DAY: Field = Field { name: "day of month", first: 1, last: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    first: 1,
    last: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
/// Sunday is 0 and 7.
const WEEKDAY: Field = Field {
    name: "day of week",
    first: 0,
    last: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
};

impl Field {
    fn parse(&self, text: &str) -> Result<Set, CronError> {
        let wrong = || CronError::Value {
            field: self.name,
            value: text.to_owned(),
            first: self.first,
            last: self.last,
        };
        let mut bits = 0_u64;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0).ok_or_else(wrong)?),
                None => (part, 1_u8),
            };
            let value = |text| self.value(text).ok_or_else(wrong);
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last),
                Some((from, to)) => (value(from)?, value(to)?),
                // With a step a single value is the first of all that follow.
                None if part.contains('/') => (value(range)?, self.last),
                None => (value(range)?, value(range)?),
            };
            if from > to {
                return Err(wrong());
            }
            bits = (from..=to).step_by(usize::from(step)).fold(bits, |bits, value| bits | 1 << value);
        }
        Ok(Set { bits, any: text.starts_with('*') })
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(at) => u8::try_from(at).ok()? + self.first,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.first..=self.last).contains(&value).then_some(value)
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(CronError::Fields(text.to_owned()));
        };
        let mut cron = Self {
            minutes: MINUTE.parse(minutes)?,
            hours: HOUR.parse(hours)?,
            days: DAY.parse(days)?,
            months: MONTH.parse(months)?,
            weekdays: WEEKDAY.parse(weekdays)?,
        };
        cron.weekdays.bits |= cron.weekdays.bits >> 7 & 1;
        let comes = cron.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_some();
        if comes { Ok(cron) } else { Err(CronError::Never(text.to_owned())) }
    }
}

impl Cron {
    /// The first beginning after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // A clock that is set back over midnight has the end of a day after the beginning of the next one.
        let first = zone.to_datetime(after).date().yesterday().ok()?;
        let mut days = first.series(1.day()).take(DAYS_MAX);
        let earliest = |date: Date| self.beginnings(date, zone).filter(|begins| *begins > after).min();
        let found = days.find_map(|date| Some((date, earliest(date)?)))?;
        let next_day = found.0.tomorrow().ok().and_then(earliest);
        Some(next_day.map_or(found.1, |other| other.min(found.1)))
    }

    fn falls_on(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let either = if self.days.any || self.weekdays.any { day && weekday } else { day || weekday };
        self.months.has(date.month()) && either
    }

    fn beginnings<'a>(&'a self, date: Date, zone: &'a TimeZone) -> impl Iterator<Item = Timestamp> + 'a {
        let hours = (0..24).filter(move |hour| self.falls_on(date) && self.hours.has(*hour));
        let times = hours.flat_map(|hour| {
            (0..60)
                .filter(|minute| self.minutes.has(*minute))
                .map(move |minute| Time::constant(hour, minute, 0, 0))
        });
        times.flat_map(move |time| self.instants(date, time, zone).into_iter().flatten())
    }

    /// When the clock shows this: once, and while it is set perhaps never or twice.
    fn instants(&self, date: Date, time: Time, zone: &TimeZone) -> [Option<Timestamp>; 2] {
        let shown = zone.to_ambiguous_timestamp(date.to_datetime(time));
        match shown.offset() {
            AmbiguousOffset::Unambiguous { .. } => [shown.unambiguous().ok(), None],
            AmbiguousOffset::Fold { .. } => {
                let second = if self.hours.any { shown.later().ok() } else { None };
                [shown.earlier().ok(), second]
            }
            // What the clock would have shown before it was set is a time before that.
            AmbiguousOffset::Gap { .. } if self.hours.any => [None, None],
            AmbiguousOffset::Gap { .. } => {
                let before = shown.earlier().ok();
                let set = before.and_then(|before| Some(zone.following(before).next()?.timestamp()));
                [set, None]
            }
        }
    }
}
