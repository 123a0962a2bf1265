//! Windows against the checker's walk over every minute, which only looks at the clock on the wall.

use evenkeel_crds::{
    condition::Time,
    rollout::{Exclusion, Window},
};
use evenkeel_operator_core::{
    check::clock,
    schedule::{Cron, CronError, Opening, Schedule, ScheduleError},
};
use jiff::{
    SignedDuration, Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

/// Clocks that are set in every way: an hour in both directions, half an hour, at midnight, a minute after it, over it,
/// twice in a month, by a whole day, and never.
const CLOCKS: [(&str, &str, i64); 12] = [
    ("Europe/Berlin", "2026-03-28T12:00:00Z", 3),
    ("Europe/Berlin", "2026-10-24T12:00:00Z", 3),
    ("America/New_York", "2026-03-07T12:00:00Z", 3),
    ("America/New_York", "2026-10-31T12:00:00Z", 3),
    ("Australia/Lord_Howe", "2026-04-03T00:00:00Z", 4),
    ("Australia/Lord_Howe", "2026-10-02T00:00:00Z", 4),
    ("America/Sao_Paulo", "2018-11-03T00:00:00Z", 3),
    ("America/Sao_Paulo", "2018-02-16T12:00:00Z", 3),
    ("America/St_Johns", "2009-10-31T12:00:00Z", 3),
    ("Africa/Casablanca", "2026-02-14T00:00:00Z", 3),
    ("Pacific/Apia", "2011-12-29T00:00:00Z", 3),
    ("Asia/Kathmandu", "2026-03-28T12:00:00Z", 2),
];

#[test]
fn beginnings_are_those_of_a_clock_that_is_looked_at_each_minute() {
    let crons = [
        "0 2 * * *",
        "30 2 * * *",
        "0 0 * * *",
        "15 1,2,3 * * *",
        "*/20 * * * *",
        "7 */2 * * *",
        "0-59/13 23 * * *",
        "1 0 * * *",
        "45 1 * * 0",
        "0 3 29 * 0",
        "* 2 * * *",
        "*/7 0-4 * * *",
        "59 23 30,31 * *",
    ];
    let mut compared = 0;
    for (name, from, days) in CLOCKS {
        let (zone, from) = (zone(name), from.parse::<Timestamp>().unwrap());
        let until = from + SignedDuration::from_hours(24 * days);
        for text in crons {
            let cron: Cron = text.parse().unwrap();
            let mut found = Vec::new();
            let mut at = from - SignedDuration::from_secs(1);
            while let Some(next) = cron.next(at, &zone).filter(|next| *next < until) {
                assert!(next > at, "{text} in {name} does not go on after {at}");
                found.push(next);
                at = next;
            }
            assert_eq!(found, clock::beginnings(text, &zone, from, until), "{text} in {name} from {from}");
            compared += found.len();
        }
    }
    assert!(compared > 5000, "{compared}");
}

fn window(cron: &str, seconds: i64, zone: &str) -> Window {
    Window { cron: cron.into(), duration_seconds: seconds, time_zone: zone.into() }
}

#[test]
fn what_is_open_is_what_a_walk_over_every_minute_finds_open() {
    let tables = [
        (vec![window("0 2 * * *", 3 * 3600, "Europe/Berlin")], vec![]),
        (vec![window("30 22 * * 6", 6 * 3600, "America/New_York"), window("0 1 * * *", 3600, "UTC")], vec![]),
        (
            vec![window("0 0 * * *", 86_400, "Australia/Lord_Howe")],
            vec![window("0 2 * * *", 1800, "Europe/Berlin")],
        ),
        (vec![], vec![window("*/30 1-3 * * *", 600, "Europe/Berlin")]),
    ];
    for (from, days) in [("2026-03-28T00:00:00Z", 2), ("2026-10-24T00:00:00Z", 2)] {
        let from: Timestamp = from.parse().unwrap();
        let until = from + SignedDuration::from_hours(24 * days);
        for (windows, excluded) in &tables {
            let exclusion =
                |window: &Window| Exclusion { window: Some(window.clone()), ..Exclusion::default() };
            let exclusions: Vec<Exclusion> = excluded.iter().map(exclusion).collect();
            let schedule = Schedule::new(windows, &exclusions).unwrap();
            let mut at = from;
            while at < until {
                let open = clock::is_open(windows, &exclusions, at);
                let change = match schedule.at(at) {
                    Opening::Open(until) => {
                        assert!(open, "{windows:?} less {excluded:?} at {at}");
                        until
                    }
                    Opening::Closed { next, .. } => {
                        assert!(!open, "{windows:?} less {excluded:?} at {at}");
                        next
                    }
                };
                let change = change.expect("all of these change again");
                let before = clock::is_open(windows, &exclusions, change - SignedDuration::from_secs(1));
                let after = clock::is_open(windows, &exclusions, change);
                assert_eq!(
                    (before, after),
                    (open, !open),
                    "{at}: {windows:?} less {excluded:?} changes at {change}"
                );
                at += SignedDuration::from_mins(45);
            }
        }
    }
}

#[test]
fn what_cron_cannot_say_is_refused_with_the_field() {
    let wrong = [
        ("* * * *", "five fields"),
        ("60 * * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 0 0 * *", "day of month"),
        ("0 0 * 13 *", "month"),
        ("0 0 * * 8", "day of week"),
        ("0 0 * * MO", "day of week"),
        ("5-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("+5 * * * *", "minute"),
        ("@daily", "five fields"),
        ("0 0 30 2 *", "never comes"),
    ];
    for (text, said) in wrong {
        let error = text.parse::<Cron>().unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    assert_eq!("0 0 31 2,4 *".parse::<Cron>(), Err(CronError::Never("0 0 31 2,4 *".into())));
    let zone = Schedule::new(&[window("0 2 * * *", 60, "Europe/Atlantis")], &[]).unwrap_err();
    assert_eq!(zone, ScheduleError::Zone("Europe/Atlantis".into()));
}

#[test]
fn names_steps_and_leap_days_are_understood() {
    let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let next = |text: &str| text.parse::<Cron>().unwrap().next(at, &TimeZone::UTC).unwrap().to_string();
    assert_eq!(next("0 4 29 feb *"), "2028-02-29T04:00:00Z");
    assert_eq!(next("0 4 * * 7"), next("0 4 * * SUN"));
    assert_eq!(next("0 4 * * mon-wed"), "2026-01-05T04:00:00Z");
    assert_eq!(next("50/5 0 * * *"), "2026-01-01T00:50:00Z");
    // Either kind of day, when both are restricted.
    assert_eq!(next("0 4 13 * FRI"), "2026-01-02T04:00:00Z");
}

#[test]
fn something_that_takes_long_waits_for_a_window_that_is_long_enough() {
    let schedule = Schedule::new(
        &[window("0 2 * * 1-5", 1800, "UTC"), window("0 2 * * 6", 4 * 3600, "UTC")],
        &[Exclusion {
            from: Some(Time("2026-01-10T00:00:00Z".parse().unwrap())),
            until: Some(Time("2026-01-12T12:00:00Z".parse().unwrap())),
            reason: "inventory".into(),
            window: None,
        }],
    )
    .unwrap();
    let monday: Timestamp = "2026-01-05T02:10:00Z".parse().unwrap();
    let fit =
        |minutes| schedule.next_fit(monday, SignedDuration::from_mins(minutes)).map(|at| at.to_string());
    assert_eq!(fit(20).as_deref(), Some("2026-01-06T02:00:00Z"));
    assert_eq!(fit(60).as_deref(), Some("2026-01-17T02:00:00Z"), "the first Saturday is excluded");
    assert_eq!(fit(600), None);
    let excluded = schedule.at("2026-01-10T02:30:00Z".parse().unwrap());
    let Opening::Closed { because, next } = excluded else { panic!("{excluded:?}") };
    assert_eq!(
        (because.as_deref(), next.unwrap().to_string().as_str()),
        (Some("inventory"), "2026-01-13T02:00:00Z")
    );
    assert_eq!(Schedule::default().at(monday), Opening::Open(None));
}
