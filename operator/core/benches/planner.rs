//! How long the planner takes for one look, pure: `cargo bench -p evenkeel-operator-core --bench planner`.
//!
//! Each figure is the least, the median and the most of several looks at the same fleet; the last column is the median for
//! each node, which stays about the same where nothing grows with the square of the fleet.

#[path = "../tests/policy/fleet.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod fleet;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use evenkeel_crds::node_plan::{Phase, RollbackCause, Target};
use evenkeel_operator_core::{NodeSeen, Policy, Snapshot, check, gates::Departure, plan};
use fleet::{failed, in_turn, node, now, policy, staged, updated};
use serde_json::json;

/// Looks at each fleet.
const ROUNDS: usize = 15;
/// Fleets, and how long one look at them may take.
const SIZES: [(usize, Option<Duration>); 3] =
    [(500, None), (5_000, Some(Duration::from_millis(50))), (50_000, Some(Duration::from_millis(500)))];

/// In the middle of a rollout: of ten nodes one is done, one failed, one is new, one is in its turn in each hundred, and
/// the others are staged.
fn halfway(size: usize) -> Snapshot {
    let mut seen = Snapshot::default();
    for number in 0..size {
        let one = match number % 10 {
            0 => updated(5),
            1 => failed(RollbackCause::User, 10),
            2 => node(),
            _ if number % 100 == 3 => in_turn(Target::Booted, Phase::Trial, 3),
            _ => staged(),
        };
        let mut one = placed(number, one);
        one.checks.departure = Departure::Free { at: now() };
        seen.nodes.insert(format!("n{number:06}"), one);
    }
    seen
}

fn done(size: usize) -> Snapshot {
    let nodes = (0..size).map(|number| (format!("n{number:06}"), placed(number, updated(5))));
    Snapshot { nodes: nodes.collect(), ..Snapshot::default() }
}

fn placed(number: usize, node: NodeSeen) -> NodeSeen {
    NodeSeen { domain: format!("zone-{}", number % 7), control_plane: number % 1000 == 3, ..node }
}

/// Everything that a policy can ask of a look.
fn busy() -> Policy {
    policy(&json!({
        "maxUnavailable": "20%", "topologyKey": "zone", "maxUnavailablePerDomain": "30%", "oneDomainAtATime": true,
        "steps": [{ "nodes": "50%" }], "windows": [{ "cron": "0 2 * * *", "durationSeconds": 86400 }],
        "failurePolicy": { "maxFailures": "50%", "maxConsecutiveFailures": 100_000, "onFirstFailure": "Continue" },
    }))
}

fn measure(what: &str, size: usize, limit: Option<Duration>, look: impl Fn() -> usize) {
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            black_box(look());
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let (least, median, most) = (took[0], took[ROUNDS / 2], took[ROUNDS - 1]);
    let each = median / u32::try_from(size).expect("a fleet has fewer nodes than that");
    let limit = limit.map_or_else(String::new, |limit| {
        format!(", limit {limit:?}: {}", if median <= limit { "kept" } else { "BROKEN" })
    });
    println!("{what:<22}{size:>7} nodes: {least:>9.2?} {median:>9.2?} {most:>9.2?}, {each:.0?} each{limit}");
}

fn main() {
    println!("{:<22}{:>14} {:>9} {:>9} {:>9}", "one look", "", "least", "median", "most");
    let policy = busy();
    let dry = Policy { dry_run: true, ..policy.clone() };
    for (size, limit) in SIZES {
        let (fleet, idle) = (halfway(size), done(size));
        let decision = plan(&policy, &fleet, now());
        assert!(decision.actions.len() > size / 100, "the planner has something to do");
        measure("a decision", size, limit, || plan(&policy, &fleet, now()).actions.len());
        measure("nothing to do", size, limit, || plan(&policy, &idle, now()).actions.len());
        measure("a dry run", size, limit, || plan(&dry, &fleet, now()).report.nodes.len());
        measure("the status line", size, None, || decision.report.summary().len());
        measure("the checker", size, None, || {
            check::violations(&policy, &fleet, now(), &decision.actions).len()
        });
    }
}
