//! What is run at steps of a node's turn: once each, in order, whoever is killed, and what a failure means.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, ensure};
use evenkeel_crds::{
    names::JOB_OF,
    node_plan::{Phase, RollbackCause},
};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    fleet::{Fleet, FleetOptions},
    os_image::OsImage,
    pods::{Runner, job_on},
    rights::NAMESPACE,
    watch::World,
};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

const ROLLOUT: Duration = Duration::from_mins(4);

fn hook(when: &str, on_failure: &str) -> Value {
    json!({ "name": when.to_lowercase(), "when": when, "onFailure": on_failure, "template": job_on("node-1") })
}

async fn jobs(fleet: &Fleet) -> Result<Vec<Job>> {
    let jobs: Api<Job> = Api::namespaced(fleet.client.clone(), NAMESPACE);
    Ok(jobs.list(&ListParams::default()).await?.items)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_are_run_once_and_in_order_though_the_operator_is_killed_after_each() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let runner = Runner::start(&fleet.client, &Arc::default());
    let second = fleet.publish(&OsImage::good("2")).await?;
    let steps = ["BeforeCordon", "AfterDrain", "AfterReboot", "AfterCommit"];
    let mut hooks: Vec<Value> = steps.iter().map(|when| hook(when, "Block")).collect();
    hooks.push(hook("AfterRevert", "Block"));
    fleet.want("os", &second.tagged, json!({ "hooks": hooks, "reboot": { "delaySeconds": 1 } })).await?;
    for count in 1..=steps.len() {
        wait::until(ROLLOUT, async || {
            let ran = runner.ran();
            ensure!(ran.len() >= count, "{ran:?}, {}", fleet.account());
            Ok(())
        })
        .await?;
        if count == 1 {
            assert!(fleet.watch.world().serves("node-1"), "it is not cordoned yet");
        }
        fleet.operators[0].kill();
        fleet.operators[0].restart()?;
    }
    fleet.until_all_run(&second.digest, ROLLOUT).await?;
    let ran: Vec<String> = runner.ran().into_iter().map(|(step, _)| step).collect();
    assert_eq!(ran, steps);
    assert!(runner.ran().iter().all(|(_, node)| node == "node-1"));
    wait::until(ROLLOUT, async || {
        let left = jobs(&fleet).await?;
        ensure!(
            left.is_empty(),
            "Jobs are left: {:?}",
            left.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        Ok(())
    })
    .await?;
    assert_eq!(fleet.machine("node-1")?.boots().len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_blocks_or_is_ignored_or_takes_the_node_back() -> Result<()> {
    let fleet = Fleet::start(&FleetOptions::of(1)).await?;
    let failing: Vec<String> = ["BeforeCordon", "AfterDrain", "AfterReboot"].map(str::to_owned).into();
    let failing = Arc::new(Mutex::new(failing));
    let runner = Runner::start(&fleet.client, &failing);
    let second = fleet.publish(&OsImage::good("2")).await?;
    let hooks = json!([
        hook("BeforeCordon", "Block"),
        hook("AfterDrain", "Ignore"),
        hook("AfterReboot", "Revert"),
        hook("AfterRevert", "Block"),
    ]);
    fleet.want("os", &second.tagged, json!({ "hooks": hooks })).await?;
    let blocked = |world: &World| world.summary("os").contains("hook beforecordon failed");
    let world = fleet.until("the hook blocks", ROLLOUT, blocked).await?;
    assert!(world.summary("os").contains("delete the Job"), "{}", world.summary("os"));
    assert!(world.serves("node-1"));
    fleet.until_event("os", &["HookFailed", "beforecordon"]).await?;
    failing.lock().unwrap().retain(|step| step != "BeforeCordon");
    for job in jobs(&fleet).await? {
        assert_eq!(job.labels()[JOB_OF], "hook.beforecordon");
        let all: Api<Job> = Api::namespaced(fleet.client.clone(), NAMESPACE);
        all.delete(&job.name_any(), &DeleteParams::background()).await?;
    }
    let back = |world: &World| world.phase("node-1") == Phase::RolledBack && world.serves("node-1");
    let world = fleet.until("the node is back", ROLLOUT, back).await?;
    let rolled_back = world.status("node-1").and_then(|status| status.rolled_back.clone());
    let rolled_back = rolled_back.expect("a node that is back says why");
    assert_eq!(rolled_back.cause, RollbackCause::ClusterGate);
    assert!(rolled_back.message.contains("hook afterreboot failed"), "{}", rolled_back.message);
    let ran: Vec<String> = runner.ran().into_iter().map(|(step, _)| step).collect();
    assert_eq!(ran, ["BeforeCordon", "BeforeCordon", "AfterDrain", "AfterReboot", "AfterRevert"]);
    Ok(())
}
