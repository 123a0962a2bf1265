//! What somebody wants of a fleet: a policy of which anything may be said.

use evenkeel_crds::ManagedOSImageSpec;
use evenkeel_operator_core::Policy;
use serde_json::{Value, json};

use crate::{checks, dice::Dice};

/// The image that does not boot on some nodes.
pub const FIRST: &str = "sha256:2000000000000000000000000000000000000000000000000000000000000000";
/// What somebody sets instead.
pub const SECOND: &str = "sha256:3000000000000000000000000000000000000000000000000000000000000000";

/// What recovery slots are to hold.
pub const THIRD: &str = "sha256:4000000000000000000000000000000000000000000000000000000000000000";

pub fn image(digest: &str) -> String {
    format!("registry.example/os@{digest}")
}

pub fn policy(dice: &mut Dice) -> Policy {
    let rollout = rollout(dice);
    let gates = json!([{ "name": "disk", "nodeCondition": { "type": "DiskOk", "status": "True" } }]);
    let gates = if dice.one_in(3) { gates } else { json!([]) };
    let drained = !dice.one_in(4);
    let spec: ManagedOSImageSpec = serde_json::from_value(json!({
        "osImage": "registry.example/os:1",
        "rollout": rollout,
        "healthGates": gates,
        "cordon": drained || dice.one_in(2),
        "drain": { "enabled": drained, "timeoutSeconds": 600 },
    }))
    .unwrap();
    let mut policy = Policy::new("os", "0a1b2c3d-uid", &spec, Some(&image(FIRST))).unwrap();
    checks::rules(&mut policy, dice);
    policy
}

fn count(dice: &mut Dice) -> Value {
    match dice.roll(3) {
        0 => json!(1),
        1 => json!(1 + dice.roll(5)),
        _ => json!(format!("{}%", 10 + dice.roll(50))),
    }
}

fn rollout(dice: &mut Dice) -> Value {
    let mut rollout = json!({
        "maxUnavailable": count(dice),
        "soakSeconds": dice.roll(3) * 45,
        "order": if dice.one_in(2) { "ControlPlaneFirst" } else { "ControlPlaneLast" },
        "failurePolicy": {
            "onFirstFailure": if dice.one_in(2) { "Stop" } else { "Continue" },
            "maxFailures": dice.roll(4),
            "action": dice.pick(&["Pause", "RevertFailed", "RevertAll"]),
            "maxAttempts": 1 + dice.roll(3),
            "backoffSeconds": 60 + dice.roll(600),
        },
    });
    if dice.one_in(4) {
        rollout["failurePolicy"]["maxConsecutiveFailures"] = json!(1 + dice.roll(3));
    }
    if dice.one_in(4) {
        rollout["failurePolicy"]["denySeconds"] = json!(600 + dice.roll(3600));
    }
    if dice.one_in(3) {
        rollout["topologyKey"] = json!("zone");
        rollout["oneDomainAtATime"] = json!(dice.one_in(2));
        rollout["maxUnavailablePerDomain"] = count(dice);
    }
    times(&mut rollout, dice);
    if dice.one_in(3) {
        rollout["steps"] = json!([
            { "nodes": 1, "soakSeconds": dice.roll(600) },
            { "selector": {}, "approval": dice.one_in(2) },
            { "nodes": "50%", "approval": dice.one_in(2), "soakSeconds": dice.roll(300) },
        ]);
    }
    rollout
}

fn times(rollout: &mut Value, dice: &mut Dice) {
    if dice.one_in(4) {
        // Every half hour, for so long that a turn fits in.
        let seconds = 900 + dice.roll(600);
        rollout["windows"] =
            json!([{ "cron": "*/30 * * * *", "durationSeconds": seconds, "timeZone": "Asia/Kathmandu" }]);
    }
    if dice.one_in(8) {
        rollout["exclusions"] = json!([
            { "window": { "cron": "5-59/20 * * * *", "durationSeconds": 300, "timeZone": "UTC" } },
        ]);
    }
}
