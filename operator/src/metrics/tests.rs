use std::collections::BTreeSet;

use evenkeel_crds::{ManagedOSImageStatus, managed_os_image::Reboot};
use evenkeel_operator_core::{NodeState, Report, report::Hold};
use jiff::Timestamp;

use super::Metrics;

fn status(phase: &str) -> ManagedOSImageStatus {
    ManagedOSImageStatus { phases: [(phase.to_owned(), 2)].into(), ..ManagedOSImageStatus::default() }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

#[test]
fn a_phase_without_nodes_and_an_image_that_is_gone_are_not_shown() {
    let metrics = Metrics::default();
    let stopped = Report { stopped: Some("os failed".into()), ..Report::default() };
    metrics.images().show("os", &status("Staging"), None, now());
    metrics.images().show("os", &status("Staged"), Some(&stopped), now());
    let text = metrics.text();
    assert!(text.contains(r#"evenkeel_nodes{image="os",phase="Staged"} 2"#), "{text}");
    assert!(text.contains(r#"evenkeel_rollout_stopped{image="os"} 1"#), "{text}");
    assert!(!text.contains("Staging"), "{text}");
    metrics.forget("os");
    assert!(!metrics.text().contains(r#"image="os""#), "{}", metrics.text());
}

#[test]
fn what_holds_nodes_is_counted_by_its_name_alone() {
    let metrics = Metrics::default();
    let held = |n: usize| NodeState::WaitsToStart(Hold::Departure(format!("pod {n}")));
    let nodes = (0..3).map(|n| (format!("n{n}"), held(n))).collect();
    let report = Report { nodes, ..Report::default() };
    metrics.images().show("os", &status("Staged"), Some(&report), now());
    let text = metrics.text();
    assert!(text.contains(r#"evenkeel_nodes_held{image="os",reason="Departure"} 3"#), "{text}");
    metrics.images().show("os", &status("Staged"), Some(&Report::default()), now());
    assert!(!metrics.text().contains("Departure"), "{}", metrics.text());
}

#[test]
fn windows_are_open_or_say_when_they_will_be() {
    let metrics = Metrics::default();
    let shown = |report: Option<&Report>| {
        metrics.images().show("os", &status("Staged"), report, now());
        let text = metrics.text();
        let lines = text.lines().filter(|line| line.contains("window") && !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let open = [r#"evenkeel_rollout_window_open{image="os"} 1"#];
    let shut = [
        r#"evenkeel_rollout_window_open{image="os"} 0"#,
        r#"evenkeel_rollout_next_window_timestamp_seconds{image="os"} 1800000000"#,
    ];
    assert_eq!(shown(Some(&Report::default())), open);
    assert_eq!(shown(Some(&Report { shut: true, next_window: Some(now()), ..Report::default() })), shut);
    assert_eq!(shown(Some(&Report::default())), open);
    assert!(shown(None).is_empty(), "nobody looked at them");
}

#[test]
fn a_channel_fails_until_its_list_is_fetched_and_is_forgotten() {
    let metrics = Metrics::default();
    metrics.channels().failed("stable", 1);
    metrics.channels().failed("stable", 2);
    let has = |line: &str| metrics.text().lines().any(|has| has == line);
    assert!(has(r#"evenkeel_channel_failing{channel="stable"} 2"#), "{}", metrics.text());
    assert!(!metrics.text().contains("fetched_timestamp_seconds{"), "{}", metrics.text());
    metrics.channels().fetched("stable", now());
    assert!(has(r#"evenkeel_channel_failing{channel="stable"} 0"#), "{}", metrics.text());
    assert!(has(r#"evenkeel_channel_failures_total{channel="stable"} 2"#), "{}", metrics.text());
    assert!(has(r#"evenkeel_channel_fetched_timestamp_seconds{channel="stable"} 1800000000"#));
    metrics.channels().forget("stable");
    assert!(!metrics.text().contains("stable"), "{}", metrics.text());
}

#[test]
fn time_without_progress_begins_when_a_phase_was_last_left() {
    let metrics = Metrics::default();
    let shown = |phase: &str, second: i64| {
        metrics.images().show("os", &status(phase), None, Timestamp::from_second(second).unwrap());
        let text = metrics.text();
        let line = text.lines().find(|line| line.starts_with("evenkeel_rollout_progress_timestamp_seconds{"));
        line.unwrap().split_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(
        [shown("Staging", 5), shown("Staging", 9), shown("Staged", 12), shown("Staged", 20)],
        ["5", "5", "12", "12"]
    );
}

/// Name, type and labels of all that is exported, as the table of the documentation has them.
fn exported(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let labels = |name: &str, kind: &str| -> BTreeSet<String> {
        let suffix = if kind == "histogram" { "_count" } else { "" };
        let of = samples
            .clone()
            .filter_map(|line| line.strip_prefix(&format!("{name}{suffix}"))?.strip_prefix('{'));
        let of = of.filter_map(|rest| rest.split_once('}'));
        of.flat_map(|(labels, _)| {
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
        })
        .collect()
    };
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let row = |(name, kind): (&str, &str)| {
        let labels: Vec<String> = labels(name, kind).into_iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} |", labels.join(", "))
    };
    types.map(row).collect()
}

#[test]
fn the_documentation_has_what_is_exported_and_nothing_else() {
    let metrics = Metrics::default();
    let condition = evenkeel_crds::Condition {
        r#type: "Ready".into(),
        status: evenkeel_crds::condition::ConditionStatus::True,
        reason: String::new(),
        message: String::new(),
        last_transition_time: evenkeel_crds::condition::Time(now()),
        observed_generation: None,
    };
    let status = ManagedOSImageStatus { conditions: vec![condition], ..status("Staged") };
    let nodes = [("n".to_owned(), NodeState::WaitsToStage(Hold::NotReady))].into();
    let report = Report { nodes, shut: true, next_window: Some(now()), ..Report::default() };
    metrics.images().show("os", &status, Some(&report), now());
    metrics.channels().failed("stable", 1);
    metrics.channels().fetched("stable", now());
    metrics.looked("os", std::time::Duration::ZERO);
    metrics.decided(std::time::Duration::ZERO);
    metrics.reconcile_failed("Conflict");
    metrics.api_failed("Conflict");
    metrics.requests().asked("GET", Some(200));
    let turns = metrics.turns();
    let node = super::turn::tests::a_node(now());
    for action in [super::turn::tests::begin(now()), super::turn::tests::finish(now())] {
        turns.did(&action, Some(&node), &Reboot::default(), now());
    }
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `evenkeel_"));
    let documented: BTreeSet<String> =
        rows.map(|row| row.split('|').take(4).collect::<Vec<_>>().join("|") + "|").collect();
    assert_eq!(exported(&metrics.text()), documented);
}
