//! When: windows, pauses, and what the line and the preview say of them.

use evenkeel_crds::{
    condition::Time,
    node_plan::{Phase, Target},
    rollout_status::RunNow,
};
use evenkeel_operator_core::{Action, NodeSeen, NodeState, Policy, report::Hold};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::fleet::{
    action, decide, decide_at, in_turn, minutes, node, policy, snapshot, staged, started, updated,
};

/// Two hours from two o'clock, each night.
fn nightly(more: &Value) -> Policy {
    let mut rollout = json!({
        "maxUnavailable": 5,
        "windows": [{ "cron": "0 2 * * *", "durationSeconds": 7200, "timeZone": "UTC" }],
    });
    rollout.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    policy(&rollout)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn nodes_are_started_in_a_window_and_finished_after_it() {
    let policy = nightly(&json!({}));
    let nodes = [("n1", staged()), ("n2", in_turn(Target::Staged, Phase::Staged, 5)), ("n3", node())];
    let seen = snapshot(&nodes);
    let night = decide_at(&policy, &seen, at("2027-01-15T02:30:00Z"));
    assert_eq!(started(&night), ["n1"]);
    assert_eq!(night.report.next_window, None);
    let day = decide_at(&policy, &seen, at("2027-01-15T08:00:00Z"));
    assert_eq!(started(&day), [""; 0]);
    let next = at("2027-01-16T02:00:00Z");
    assert_eq!(day.report.next_window, Some(next));
    let waiting = decide_at(&policy, &snapshot(&nodes[..1]), at("2027-01-15T08:00:00Z"));
    assert_eq!(waiting.report.wake_at, Some(next));
    assert_eq!(action(&day, "n2"), Some(Action::Evict), "what was started is finished");
    assert!(
        matches!(action(&day, "n3"), Some(Action::OrderStage { .. })),
        "staging takes nothing out of service"
    );
    assert!(
        day.report
            .summary()
            .contains("next n1: no window is open; the next one opens at 2027-01-16T02:00:00Z")
    );
}

#[test]
fn staging_has_windows_of_its_own() {
    let policy = policy(&json!({ "stagingWindows": [{ "cron": "0 20 * * *", "durationSeconds": 3600 }] }));
    let seen = snapshot(&[("n1", node()), ("n2", staged())]);
    let day = decide_at(&policy, &seen, at("2027-01-15T08:00:00Z"));
    assert_eq!(action(&day, "n1"), None);
    assert_eq!(started(&day), ["n2"], "starting has none");
    let next = Some(at("2027-01-15T20:00:00Z"));
    assert_eq!(day.report.nodes["n1"], NodeState::WaitsToStage(Hold::StagingWindow { next }));
    let evening = decide_at(&policy, &snapshot(&[("n1", node())]), at("2027-01-15T20:00:00Z"));
    assert!(matches!(action(&evening, "n1"), Some(Action::OrderStage { .. })));
}

#[test]
fn a_node_that_would_not_fit_in_waits_for_the_next_window() {
    let policy = nightly(&json!({}));
    let seen = |took: i64| {
        snapshot(&[("n1", staged()), ("n2", updated(took)), ("n3", updated(500)), ("n4", updated(1))])
    };
    // The median of what nodes took: half an hour.
    let late = at("2027-01-15T03:40:00Z");
    assert_eq!(started(&decide_at(&policy, &seen(15), late)), ["n1"]);
    let decision = decide_at(&policy, &seen(30), late);
    let next = Some(at("2027-01-16T02:00:00Z"));
    let takes = SignedDuration::from_mins(30);
    assert_eq!(decision.report.nodes["n1"], NodeState::WaitsToStart(Hold::TooShort { takes, next }));
    let never = decide_at(&policy, &seen(121), late);
    let takes = SignedDuration::from_mins(121);
    assert_eq!(never.report.nodes["n1"], NodeState::WaitsToStart(Hold::TooShort { takes, next: None }));
    assert!(never.report.summary().contains("no window is long enough: a node takes about 2 h 1 min"));
}

#[test]
fn somebody_may_have_windows_ignored_for_a_time_and_is_named() {
    let mut policy = nightly(&json!({
        "exclusions": [{ "from": "2027-01-01T00:00:00Z", "until": "2027-02-01T00:00:00Z", "reason": "inventory" }],
    }));
    let seen = snapshot(&[("n1", staged())]);
    let night = at("2027-01-15T02:30:00Z");
    let held = decide_at(&policy, &seen, night);
    assert!(
        held.report.summary().contains("excluded (inventory); the next one opens at 2027-02-01T02:00:00Z")
    );
    policy.run_now = Some(RunNow { by: "alice".into(), until: Time(night + minutes(10)) });
    let decision = decide_at(&policy, &seen, night);
    assert_eq!(started(&decision), ["n1"]);
    assert_eq!(decision.report.run_now, policy.run_now);
    assert!(decision.report.summary().contains("windows are ignored until 2027-01-15T02:40:00Z (alice)"));
    let after = decide_at(&policy, &seen, night + minutes(10));
    assert_eq!((started(&after).len(), after.report.run_now), (0, None));
}

#[test]
fn a_pause_names_its_owner_and_what_it_keeps_from_happening() {
    let policy = policy(&json!({
        "pauses": [
            { "owner": "old", "until": "2026-01-01T00:00:00Z" },
            { "owner": "shop", "reason": "sale", "until": "2027-01-16T00:00:00Z" },
        ],
    }));
    let mut decision =
        decide_at(&policy, &snapshot(&[("n1", staged()), ("n2", node())]), at("2027-01-15T00:00:00Z"));
    assert!(decision.actions.is_empty());
    assert_eq!(decision.report.wake_at, Some(at("2027-01-16T00:00:00Z")));
    let line = decision.report.summary();
    assert!(
        line.contains("paused by shop (sale): would update 2 nodes (n1, n2) to sha256:222222222222"),
        "{line}"
    );
    decision = decide_at(&policy, &snapshot(&[("n1", staged())]), at("2027-01-16T00:00:00Z"));
    assert_eq!(started(&decision), ["n1"]);
}

#[test]
fn a_dry_run_begins_nothing_finishes_what_was_begun_and_tells_what_would_be() {
    let mut policy = nightly(&json!({
        "maxUnavailable": 2, "steps": [{ "nodes": 1, "approval": true }], "pauses": [{ "owner": "shop" }],
    }));
    policy.dry_run = true;
    let down = NodeSeen { ready: false, ..node() };
    let nodes = [
        ("down", down),
        ("new", NodeSeen { plan: None, ..node() }),
        ("n1", node()),
        ("n2", node()),
        ("n3", node()),
        ("n4", node()),
        ("run", in_turn(Target::Staged, Phase::Staged, 1)),
        ("was", updated(30)),
    ];
    let decision = decide_at(&policy, &snapshot(&nodes), at("2027-01-15T08:10:00Z"));
    assert_eq!(decision.actions.len(), 2, "{:?}", decision.actions);
    assert_eq!(action(&decision, "run"), Some(Action::Evict));
    assert_eq!(action(&decision, "new"), Some(Action::EnsurePlan), "its agent has to report");
    assert_eq!(decision.report.progress, None, "no rollout has begun");
    let later = decide_at(&policy, &snapshot(&nodes), at("2027-01-15T08:10:30Z"));
    assert_eq!(
        later.report.summary(),
        decision.report.summary(),
        "a status that says the same is not written"
    );
    assert_eq!(later.report.preview, decision.report.preview);
    let preview = decision.report.preview.unwrap();
    assert_eq!(preview.order, [["n1"], ["n2"], ["n3"], ["n4"]].map(|wave| wave.map(str::to_owned).to_vec()));
    assert_eq!((preview.nodes, preview.waves, preview.seconds), (4, 4, Some(4 * 1800)));
    assert_eq!(
        preview.ends_at,
        Some(Time(at("2027-01-16T05:00:00Z"))),
        "two hours from two o'clock, and rounded up"
    );
    let blockers = preview.blockers.join("\n");
    for said in
        ["paused by shop", "without a report of their agent: new", "not Ready: down", "waits for approval"]
    {
        assert!(blockers.contains(said), "{said}: {blockers}");
    }
}

#[test]
fn a_preview_is_small_whatever_the_fleet() {
    let mut policy = policy(&json!({ "maxUnavailable": 3 }));
    policy.dry_run = true;
    let names: Vec<String> = (0..2000).map(|number| format!("n{number:04}")).collect();
    let nodes: Vec<(&str, NodeSeen)> = names.iter().map(|name| (name.as_str(), node())).collect();
    let preview = decide(&policy, &nodes).report.preview.unwrap();
    assert_eq!((preview.nodes, preview.waves), (2000, 667));
    assert!(preview.order.len() <= 5 && preview.order.iter().all(|wave| wave.len() <= 10));
    assert!(serde_json::to_string(&preview).unwrap().len() < 2000);
}

#[test]
fn the_line_counts_what_many_do_and_names_trouble_first() {
    let policy = policy(&json!({ "maxUnavailable": 9, "maxStaging": 50 }));
    let staging = crate::fleet::ordered(Target::Staged, Phase::Staging);
    let mut nodes: Vec<(String, NodeSeen)> = (0..9).map(|at| (format!("s{at}"), staging.clone())).collect();
    nodes.extend((0..5).map(|at| (format!("r{at}"), in_turn(Target::Booted, Phase::Rebooting, 1))));
    nodes.push(("lost".into(), in_turn(Target::Reverted, Phase::Rebooting, 20)));
    nodes.push(("done".into(), updated(7)));
    let nodes: Vec<(&str, NodeSeen)> =
        nodes.iter().map(|(name, node)| (name.as_str(), node.clone())).collect();
    let line = decide(&policy, &nodes).report.summary();
    assert!(line.starts_with("1/16 updated; 9 staging; lost going back"), "{line}");
    assert!(line.contains("r0 rebooting; r1 rebooting; 3 more on their way"), "{line}");
}
