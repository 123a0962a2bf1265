//! How many at once, which of them, and in which order.

use evenkeel_crds::node_plan::{Phase, RollbackCause, Target};
use evenkeel_operator_core::{Action, NodeSeen, NodeState, Snapshot, report::Hold};
use jiff::Timestamp;
use serde_json::json;

use crate::fleet::{
    action, decide, decide_at, failed, in_turn, minutes, node, now, policy, snapshot, staged, started, state,
    updated,
};

fn in_domain(domain: &str, node: NodeSeen) -> NodeSeen {
    NodeSeen { domain: domain.into(), ..node }
}

#[test]
fn whatever_is_out_of_service_counts_and_so_do_failures() {
    let policy = policy(&json!({ "maxUnavailable": 3, "failurePolicy": { "maxFailures": 5 } }));
    let nodes = [
        ("down", NodeSeen { ready: false, ..node() }),
        ("failed", failed(RollbackCause::Bootloader, 10)),
        ("n1", staged()),
        ("n2", staged()),
        ("proof", updated(5)),
    ];
    let decision = decide(&policy, &nodes);
    assert_eq!(started(&decision), ["n1"]);
    let hold = state(&decision, "n2");
    assert!(hold.contains("3 of 3 nodes") && hold.contains("1 of them because the image failed"), "{hold}");
}

#[test]
fn failures_that_take_the_whole_budget_are_said_to() {
    let policy = policy(&json!({ "maxUnavailable": 1, "failurePolicy": { "maxFailures": 5 } }));
    let nodes = [("bad", failed(RollbackCause::Bootloader, 10)), ("n1", staged()), ("proof", updated(5))];
    let decision = decide(&policy, &nodes);
    assert!(decision.report.stopped.is_none() && decision.report.used_up.is_some(), "{:?}", decision.report);
    let line = decision.report.summary();
    assert!(line.contains("take all of maxUnavailable, so that no other is started"), "{line}");
    assert_eq!(started(&decision), [""; 0]);
}

#[test]
fn failures_that_take_a_domains_whole_budget_are_said_to() {
    let mut wanted = json!({
        "maxUnavailable": 10, "topologyKey": "zone", "maxUnavailablePerDomain": 1, "oneDomainAtATime": true,
        "failurePolicy": { "maxFailures": 5 },
    });
    let nodes = |b1: NodeSeen| {
        [
            ("a1", in_domain("a", failed(RollbackCause::Bootloader, 10))),
            ("a2", in_domain("a", staged())),
            ("b1", in_domain("b", b1)),
            ("proof", in_domain("c", updated(5))),
        ]
    };
    let decision = decide(&policy(&wanted), &nodes(staged()));
    assert_eq!(started(&decision), [""; 0]);
    let line = decision.report.summary();
    assert!(line.contains("take all of maxUnavailablePerDomain in domain a"), "{line}");
    // While something is going on, that is what is said; and where others can be started, they are.
    let going = decide(&policy(&wanted), &nodes(in_turn(Target::Booted, Phase::Rebooting, 1)));
    assert_eq!(going.report.used_up, None);
    wanted["oneDomainAtATime"] = json!(false);
    let decision = decide(&policy(&wanted), &nodes(staged()));
    assert_eq!((started(&decision), &decision.report.used_up), (vec!["b1"], &None));
}

#[test]
fn nodes_that_cannot_prove_an_image_do_not_keep_others_from_it() {
    let dead = || NodeSeen { ready: false, ..node() };
    let zones = policy(&json!({ "maxUnavailable": 2, "topologyKey": "zone", "maxUnavailablePerDomain": 1 }));
    let nodes = [
        ("a1", in_domain("a", staged())),
        ("a2", in_domain("a", staged())),
        ("a3", in_domain("a", dead())),
        ("a4", in_domain("a", node())),
        ("b1", in_domain("b", node())),
    ];
    let decision = decide(&zones, &nodes);
    assert!(matches!(action(&decision, "b1"), Some(Action::OrderStage { .. })), "{}", state(&decision, "b1"));
    assert!(state(&decision, "a4").contains("1 of 1 nodes of domain a"), "{}", state(&decision, "a4"));
    let controller = |node: NodeSeen| NodeSeen { control_plane: true, ..node };
    let nodes = [
        ("c1", controller(staged())),
        ("c2", controller(staged())),
        ("c3", controller(dead())),
        ("w1", node()),
    ];
    let decision = decide(&policy(&json!({ "maxUnavailable": 2 })), &nodes);
    assert!(matches!(action(&decision, "w1"), Some(Action::OrderStage { .. })), "{}", state(&decision, "w1"));
}

#[test]
fn etcd_keeps_its_quorum_also_on_nodes_without_the_control_planes_label() {
    let policy = policy(&json!({ "maxUnavailable": 3 }));
    let mut seen = snapshot(&[("e1", staged()), ("proof", updated(5))]);
    seen.etcd = [("e1", true), ("e2", true), ("e3", false)].map(|(name, ready)| (name.into(), ready)).into();
    let decision = decide_at(&policy, &seen, now());
    assert_eq!(started(&decision), [""; 0]);
    assert!(state(&decision, "e1").contains("etcd would lose its quorum"), "{}", state(&decision, "e1"));
}

#[test]
fn a_domain_has_a_budget_of_its_own() {
    let policy = policy(&json!({
        "maxUnavailable": 10, "topologyKey": "zone", "maxUnavailablePerDomain": "50%",
    }));
    let nodes = [
        ("a1", in_domain("a", staged())),
        ("a2", in_domain("a", staged())),
        ("a3", in_domain("a", NodeSeen { ready: false, ..node() })),
        ("a4", in_domain("a", staged())),
        ("b1", in_domain("b", staged())),
        ("c1", in_domain("", staged())),
    ];
    let decision = decide(&policy, &nodes);
    // Two of four, of one at least.
    assert_eq!(started(&decision), ["c1", "a1", "b1"]);
    assert!(state(&decision, "a2").contains("2 of 2 nodes of domain a"), "{}", state(&decision, "a2"));
}

#[test]
fn a_domain_is_finished_before_the_next_but_not_for_ever() {
    let policy = policy(&json!({ "maxUnavailable": 10, "topologyKey": "zone", "oneDomainAtATime": true }));
    let zones = |a2: NodeSeen| {
        [
            ("a1", in_domain("a", in_turn(Target::Booted, Phase::Rebooting, 1))),
            ("a2", in_domain("a", a2)),
            ("b1", in_domain("b", staged())),
        ]
    };
    let decision = decide(&policy, &zones(staged()));
    assert_eq!(started(&decision), ["a2"]);
    assert_eq!(decision.report.nodes["b1"], NodeState::WaitsToStart(Hold::Domain("a".into())));
    // The first one is done, the second cannot be: nobody waits for it.
    let mut nodes = zones(NodeSeen { ready: false, ..staged() });
    nodes[0].1 = in_domain("a", updated(5));
    assert_eq!(started(&decide(&policy, &nodes)), ["b1"]);
    // It is only staging: the next domain waits.
    nodes[1].1 = in_domain("a", crate::fleet::ordered(Target::Staged, Phase::Staging));
    assert_eq!(started(&decide(&policy, &nodes)), [""; 0]);
}

#[test]
fn a_domain_that_was_begun_is_finished_whichever_comes_first_by_weight_or_name() {
    let policy = policy(&json!({ "maxUnavailable": 10, "topologyKey": "zone", "oneDomainAtATime": true }));
    let heavy = NodeSeen { weight: 5, ..staged() };
    let nodes = [
        ("a1", in_domain("a", heavy)),
        // It was the heaviest, and is done.
        ("b1", in_domain("b", NodeSeen { weight: 10, ..updated(5) })),
        ("b2", in_domain("b", staged())),
    ];
    let decision = decide(&policy, &nodes);
    assert_eq!(started(&decision), ["b2"]);
    assert_eq!(decision.report.nodes["a1"], NodeState::WaitsToStart(Hold::Domain("b".into())));
}

#[test]
fn the_order_is_role_weight_domain_age_name_and_the_operators_own_node_last() {
    let policy = policy(&json!({ "maxUnavailable": 1, "order": "ControlPlaneLast", "topologyKey": "zone" }));
    let at = |second: i64| Timestamp::from_second(second).ok();
    let mut nodes = vec![
        ("own", NodeSeen { runs_operator: true, weight: 9, ..staged() }),
        ("controller", NodeSeen { control_plane: true, weight: 5, ..staged() }),
        ("heavy", NodeSeen { weight: 1, domain: "z".into(), ..staged() }),
        ("old", NodeSeen { domain: "b".into(), created: at(10), ..staged() }),
        ("young", NodeSeen { domain: "b".into(), created: at(20), ..staged() }),
        ("first", NodeSeen { domain: "a".into(), created: at(30), ..staged() }),
        ("last", NodeSeen { weight: -1, ..staged() }),
    ];
    let mut order = Vec::new();
    while !nodes.is_empty() {
        let decision = decide(&policy, &nodes);
        let [next] = started(&decision)[..] else { panic!("{:?}", decision.report) };
        order.push(next.to_owned());
        nodes.retain(|(name, _)| *name != next);
    }
    assert_eq!(order, ["heavy", "first", "old", "young", "last", "controller", "own"]);
}

#[test]
fn the_operators_own_node_waits_for_those_that_come_soon_and_not_for_those_that_cannot() {
    let policy = policy(&json!({ "maxUnavailable": 5 }));
    let own = NodeSeen { runs_operator: true, ..staged() };
    let staging = crate::fleet::ordered(Target::Staged, Phase::Staging);
    let decision = decide(&policy, &[("n1", staging), ("own", own.clone())]);
    assert_eq!(decision.report.nodes["own"], NodeState::WaitsToStart(Hold::OperatorsNode));
    let decision = decide(&policy, &[("n1", NodeSeen { ready: false, ..staged() }), ("own", own)]);
    assert_eq!(started(&decision), ["own"]);
}

#[test]
fn etcd_keeps_its_quorum() {
    let policy = policy(&json!({ "maxUnavailable": 5 }));
    let controller = NodeSeen { control_plane: true, ..staged() };
    let with = |members: &[(&str, bool)]| {
        let etcd = members.iter().map(|(name, ready)| ((*name).to_owned(), *ready)).collect();
        let seen = Snapshot { etcd, ..snapshot(&[("c1", controller.clone())]) };
        decide_at(&policy, &seen, now())
    };
    assert_eq!(started(&with(&[])), ["c1"], "nothing is known of etcd");
    assert_eq!(started(&with(&[("c1", true), ("c2", true), ("c3", true)])), ["c1"]);
    let decision = with(&[("c1", true), ("c2", true), ("c3", false)]);
    assert_eq!(
        decision.report.nodes["c1"],
        NodeState::WaitsToStart(Hold::Quorum { ready: 1, needed: 2 }),
        "two of three would not be there"
    );
    assert_eq!(
        started(&with(&[("c1", false), ("c2", true), ("c3", true)])),
        ["c1"],
        "its own is not counted"
    );
    assert_eq!(started(&with(&[("c1", true)])), ["c1"], "there is no quorum to keep");
    assert_eq!(started(&with(&[("c1", true), ("c2", false)])), [""; 0]);
    assert_eq!(started(&with(&[("c2", true), ("c3", false)])), ["c1"], "it has no member");
}

#[test]
fn an_agent_that_never_answers_holds_no_place_in_the_queue() {
    let policy = policy(&json!({ "maxUnavailable": 1 }));
    let mut silent = crate::fleet::ordered(Target::Staged, Phase::Idle);
    silent.plan.as_mut().unwrap().status.plan_id = None;
    let at = |later: i64| {
        decide_at(&policy, &snapshot(&[("n1", silent.clone()), ("n2", node())]), now() + minutes(later))
    };
    let ordered =
        |decision: &evenkeel_operator_core::Decision| crate::fleet::action(decision, "n2").is_some();
    assert!(!ordered(&at(-25)), "it was ordered five minutes ago");
    assert!(ordered(&at(0)), "it had half an hour");
}
