//! How long a decision takes. A figure, not a rule: `make sim` shows it.

use evenkeel_crds::node_plan::RollbackCause;
use evenkeel_operator_core::{NodeSeen, Snapshot, plan};
use serde_json::json;

use crate::fleet::{failed, node, now, policy, staged, updated};

fn fleet(size: usize) -> Snapshot {
    let mut seen = Snapshot::default();
    for number in 0..size {
        let one = match number % 10 {
            0 => updated(5),
            1 => failed(RollbackCause::User, 10),
            2 => node(),
            _ => staged(),
        };
        let domain = format!("zone-{}", number % 7);
        let control_plane = number % 1000 == 3;
        seen.nodes.insert(format!("n{number:06}"), NodeSeen { domain, control_plane, ..one });
    }
    seen
}

#[test]
#[ignore = "a measurement"]
fn how_long_a_decision_takes() {
    let mut policy = policy(&json!({
        "maxUnavailable": "10%", "topologyKey": "zone", "maxUnavailablePerDomain": "20%", "oneDomainAtATime": true,
        "steps": [{ "nodes": "50%" }], "windows": [{ "cron": "0 2 * * *", "durationSeconds": 86400 }],
        "failurePolicy": { "maxFailures": "50%", "maxConsecutiveFailures": 100_000, "onFirstFailure": "Continue" },
    }));
    for size in [500, 5000, 50_000] {
        let seen = fleet(size);
        for dry_run in [false, true] {
            policy.dry_run = dry_run;
            let took = (0..5).map(|_| {
                let begun = std::time::Instant::now();
                assert_eq!(plan(&policy, &seen, now()).report.nodes.len(), size);
                begun.elapsed()
            });
            let what = if dry_run { "a preview" } else { "a decision" };
            println!("{what} over {size} nodes: {:?}", took.min().unwrap());
        }
    }
}
