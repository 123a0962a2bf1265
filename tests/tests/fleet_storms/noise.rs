//! What others do in a cluster while a rollout goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use evenkeel_crds::{ManagedOSImage, ManagedOSVersion, NodePlan};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    fleet::Fleet,
    rights::{self, NAMESPACE},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

const SERVED: Duration = Duration::from_mins(1);
/// So many objects of others, each changed by a task of its own.
const STRANGERS: usize = 8;
/// Of one of them; together 10,000 in a minute.
const PAUSE: Duration = Duration::from_millis(48);
/// In a minute: a busy machine, and an API server that is away, may not come to all of them.
const CHANGES_LEAST: usize = 2500;
/// What was missed while the API server was away is made up for in this time.
const CATCH_UP: Duration = Duration::from_mins(2);

/// Fields that a later version may have, and a kind of thing that this one does not know.
const LATER: [(&str, &str, &str); 4] = [
    ("managedosimages.evenkeel.dev", "add", "spec/properties/mood"),
    ("nodeplans.evenkeel.dev", "add", "spec/properties/whim"),
    ("nodeplans.evenkeel.dev", "add", "status/properties/dreams"),
    ("managedosversions.evenkeel.dev", "remove", "spec/properties/type/enum"),
];

/// Changes of objects that no image object selects, until this is dropped.
pub struct Noise {
    changes: Arc<AtomicUsize>,
    since: Instant,
    _tasks: JoinSet<()>,
}

impl Noise {
    /// Begins.
    pub async fn start(client: &Client) -> Result<Self> {
        let (changes, mut tasks) = (Arc::<AtomicUsize>::default(), JoinSet::new());
        let nodes: Api<Node> = Api::all(client.clone());
        for number in 0..STRANGERS {
            let name = format!("stranger-{number}");
            let node = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
            nodes.create(&PostParams::default(), &node).await?;
            tasks.spawn(change(nodes.clone(), name, Arc::clone(&changes)));
        }
        Ok(Self { changes, since: Instant::now(), _tasks: tasks })
    }

    /// Whether there was as much of it as there should be, since it began.
    pub async fn was_heard(&self) -> Result<()> {
        wait::until(CATCH_UP, async || {
            let seconds = usize::try_from(self.since.elapsed().as_secs().max(1))?;
            let in_a_minute = self.changes.load(Ordering::Relaxed) * 60 / seconds;
            ensure!(in_a_minute >= CHANGES_LEAST, "only {in_a_minute} changes of others in a minute");
            Ok(())
        })
        .await
    }
}

/// Labels are what image objects select by: whoever watches Nodes has to look.
async fn change(nodes: Api<Node>, name: String, changes: Arc<AtomicUsize>) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let number = changes.load(Ordering::Relaxed).to_string();
        let patch = Patch::Merge(json!({ "metadata": { "labels": { "noise": number } } }));
        if nodes.patch(&name, &PatchParams::default(), &patch).await.is_ok() {
            changes.fetch_add(1, Ordering::Relaxed);
        } else {
            // An API server that is away comes back.
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Makes the API server know what a later version of the API types has, and makes an object that only that one can read.
pub async fn learn_of_later_versions(fleet: &Fleet) -> Result<()> {
    for (definition, verb, path) in LATER {
        let path = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{path}");
        let change = json!([{ "op": verb, "path": path, "value": { "type": "string" } }]).to_string();
        let arguments = ["patch", "crd", definition, "--type=json", "--patch", &change];
        fleet.cluster.kubectl(&arguments).await?;
    }
    let version = json!({
        "apiVersion": ManagedOSVersion::api_version(&()), "kind": ManagedOSVersion::kind(&()),
        "metadata": { "name": "later" },
        "spec": { "version": "v9.9.9", "type": "hologram", "metadata": { "upgradeImage": "r.example/os:9" } },
    });
    // It is served a moment after it was accepted.
    wait::until(SERVED, async || {
        fleet.cluster.kubectl_with(&["apply", "-f", "-"], &version.to_string()).await?;
        let probe = json!({
            "apiVersion": ManagedOSImage::api_version(&()), "kind": ManagedOSImage::kind(&()),
            "metadata": { "name": "probe" }, "spec": { "osImage": "r.example/os:9", "mood": "curious" },
        });
        let arguments = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        fleet.cluster.kubectl_with(&arguments, &probe.to_string()).await
    })
    .await?;
    Ok(())
}

/// Says something of a node's plan that only a later version understands.
pub async fn say_more(fleet: &Fleet, node: &str) -> Result<()> {
    let (plans, params) = (plans(fleet), PatchParams::apply("a-later-version").force());
    let document = |half: &str, more: Value| {
        json!({
            "apiVersion": NodePlan::api_version(&()), "kind": NodePlan::kind(&()), "metadata": { "name": node }, half: more,
        })
    };
    plans.patch(node, &params, &Patch::Apply(document("spec", json!({ "whim": "later" })))).await?;
    let dreams = document("status", json!({ "dreams": "sheep" }));
    plans.patch_status(node, &params, &Patch::Apply(dreams)).await?;
    Ok(())
}

/// Nobody took away what he does not understand.
pub async fn all_is_kept(fleet: &Fleet, node: &str) -> Result<()> {
    let plan = plans(fleet).get(node).await?.data;
    ensure!(plan["spec"]["whim"] == "later" && plan["status"]["dreams"] == "sheep", "{plan}");
    let images: Api<DynamicObject> =
        Api::all_with(fleet.client.clone(), &kube::api::ApiResource::erase::<ManagedOSImage>(&()));
    let image = images.get("os").await?.data;
    ensure!(image["spec"]["mood"] == "hopeful", "{image}");
    Ok(())
}

fn plans(fleet: &Fleet) -> Api<DynamicObject> {
    Api::all_with(fleet.client.clone(), &kube::api::ApiResource::erase::<NodePlan>(&()))
}

/// Has the API server answer 429 to whatever the operator asks, or no longer so.
pub async fn refuse_operators(fleet: &Fleet, refuse: bool) -> Result<()> {
    let account = rights::account(&fleet.client, "operator").await?;
    let none = json!({ "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": { "type": "Reject" } });
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": { "name": "nobody" }, "spec": { "type": "Limited", "limited": none },
    });
    let rule = json!({
        "subjects": [{ "kind": "ServiceAccount", "serviceAccount": { "namespace": NAMESPACE, "name": account } }],
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
        }],
    });
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": { "name": "operators" },
        "spec": {
            "priorityLevelConfiguration": { "name": "nobody" }, "matchingPrecedence": 2, "rules": [rule],
        },
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [level, schema] }).to_string();
    let verb = if refuse { "apply" } else { "delete" };
    fleet.cluster.kubectl_with(&[verb, "-f", "-"], &list).await?;
    Ok(())
}
