//! Whether a window is open, by looking at the clock on the wall for each minute since it could have begun.

use evenkeel_crds::rollout::{Exclusion, Window};
use jiff::{
    SignedDuration, Timestamp, ToSpan as _,
    civil::DateTime,
    tz::{TimeZone, TimeZoneDatabase},
};

/// A day and a half: what a clock shows for the second time was first shown within it.
const BEFORE: SignedDuration = SignedDuration::from_hours(36);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Whether something may be started now.
pub fn is_open(windows: &[Window], exclusions: &[Exclusion], now: Timestamp) -> bool {
    let excluded = exclusions.iter().any(|exclusion| {
        exclusion.window.as_ref().is_some_and(|window| holds(window, now))
            || exclusion.from.zip(exclusion.until).is_some_and(|(from, until)| from.0 <= now && now < until.0)
    });
    !excluded && (windows.is_empty() || windows.iter().any(|window| holds(window, now)))
}

fn holds(window: &Window, now: Timestamp) -> bool {
    let Ok(zone) = TimeZoneDatabase::bundled().get(&window.time_zone) else { return false };
    let length = SignedDuration::from_secs(window.duration_seconds);
    beginnings(&window.cron, &zone, now - length, now + SignedDuration::from_secs(1))
        .into_iter()
        .any(|begins| begins <= now && now < begins + length)
}

/// Every beginning in a stretch of time. What a clock skips while it is set begins at once when it was; what it shows
/// again does not begin again; unless the hour does not matter.
pub fn beginnings(cron: &str, zone: &TimeZone, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let any_hour = cron.split(' ').nth(1).is_some_and(|hour| hour.starts_with('*'));
    let mut found = Vec::new();
    let first = from - BEFORE;
    // To the minute; zones have offsets of whole minutes since 1972.
    let mut at = first - SignedDuration::from_secs(first.as_second().rem_euclid(60));
    let mut furthest = zone.to_datetime(at - MINUTE);
    while at < until {
        let clock = zone.to_datetime(at);
        let mut begins = (clock > furthest || any_hour) && is_shown(cron, clock);
        let mut skipped = next(furthest);
        while !any_hour && skipped < clock {
            begins |= is_shown(cron, skipped);
            skipped = next(skipped);
        }
        if begins && at >= from {
            found.push(at);
        }
        furthest = furthest.max(clock);
        at += MINUTE;
    }
    found
}

fn next(clock: DateTime) -> DateTime {
    clock.saturating_add(1.minute())
}

fn is_shown(cron: &str, clock: DateTime) -> bool {
    let fields: Vec<&str> = cron.split(' ').collect();
    let [minute, hour, day, month, weekday] = fields[..] else { return false };
    let of_week = clock.weekday().to_sunday_zero_offset();
    let days = allows(day, clock.day(), 1, &[]);
    let weekdays = allows(weekday, of_week, 0, &WEEKDAYS) || of_week == 0 && allows(weekday, 7, 0, &WEEKDAYS);
    let any_day = day.starts_with('*') || weekday.starts_with('*');
    let date = if any_day { days && weekdays } else { days || weekdays };
    let time = allows(minute, clock.minute(), 0, &[]) && allows(hour, clock.hour(), 0, &[]);
    time && date && allows(month, clock.month(), 1, &MONTHS)
}

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Whether a field that admission let through allows a value; `first` is the least that it may have.
fn allows(field: &str, value: i8, first: i8, names: &[&str]) -> bool {
    let number = |text: &str| {
        let by_name = (first..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text));
        by_name.map_or_else(|| text.parse().unwrap_or(-1), |(value, _)| value)
    };
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').map_or((part, ""), |(range, step)| (range, step));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from), number(to)),
            None if range == "*" => (first, i8::MAX),
            None if step.is_empty() => (number(range), number(range)),
            None => (number(range), i8::MAX),
        };
        (from..=to).contains(&value) && (value - from) % step.parse::<i8>().unwrap_or(1).max(1) == 0
    })
}
