//! Pods of a fleet: those that are in the way of a drain, and those of Jobs, which a model kubelet does not run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{EnvVar, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::{fleet::Fleet, rights::NAMESPACE};

const POLL: Duration = Duration::from_millis(100);

impl Fleet {
    /// A workload of one pod on a node, and a budget that lets none of it go.
    pub async fn guard_with_budget(&self, name: &str, node: &str) -> Result<()> {
        let sets: Api<ReplicaSet> = Api::default_namespaced(self.client.clone());
        let labels = json!({ "app": name });
        let pod = json!({
            "nodeName": node, "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "one", "image": "none" }],
        });
        let set = json!({
            "metadata": { "name": name },
            "spec": {
                "replicas": 1, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        });
        self.create(&sets, set).await?;
        self.budget(name, name).await
    }

    /// A budget that lets no pod of a workload go.
    pub async fn budget(&self, name: &str, of: &str) -> Result<()> {
        let budget = json!({
            "metadata": { "name": name },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": of } } },
        });
        let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(self.client.clone());
        self.create(&budgets, budget).await?;
        Ok(())
    }

    /// A pod on a node that nobody owns.
    pub async fn bare_pod(&self, name: &str, node: &str, metadata: &Value, spec: &Value) -> Result<()> {
        let mut pod = json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "one", "image": "none" }],
            },
        });
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            let into = pod[part].as_object_mut().expect("it was just written");
            into.extend(more.as_object().cloned().unwrap_or_default());
        }
        self.create(&Api::<Pod>::default_namespaced(self.client.clone()), pod).await?;
        Ok(())
    }
}

/// The pod of a Job: its step, its node.
pub type Ran = (String, String);

/// Ends the pods of Jobs in the operator's namespace, until it is dropped.
pub struct Runner {
    ran: Arc<Mutex<Vec<Ran>>>,
    task: JoinHandle<()>,
}

impl Runner {
    /// Pods of these steps fail, for as long as they are in the set; others succeed.
    pub fn start(client: &Client, failing: &Arc<Mutex<Vec<String>>>) -> Self {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(run(client.clone(), Arc::clone(&ran), Arc::clone(failing)));
        Self { ran, task }
    }

    /// The pods that were ended, in order.
    pub fn ran(&self) -> Vec<Ran> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(client: Client, ran: Arc<Mutex<Vec<Ran>>>, failing: Arc<Mutex<Vec<String>>>) {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    loop {
        sleep(POLL).await;
        let Ok(list) = pods.list(&ListParams::default()).await else { continue };
        for pod in list.items {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            if phase.as_deref() != Some("Running") {
                continue;
            }
            let env = environment(&pod);
            let step = env.get("EVENKEEL_STEP").cloned().unwrap_or_default();
            let fails = failing.lock().unwrap_or_else(PoisonError::into_inner).contains(&step);
            let phase = if fails { "Failed" } else { "Succeeded" };
            let patch = Patch::Strategic(json!({ "status": { "phase": phase } }));
            if pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.is_ok() {
                let node = env.get("EVENKEEL_NODE").cloned().unwrap_or_default();
                ran.lock().unwrap_or_else(PoisonError::into_inner).push((step, node));
            }
        }
    }
}

fn environment(pod: &Pod) -> BTreeMap<String, String> {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let env = container.and_then(|container| container.env.clone()).unwrap_or_default();
    env.into_iter().map(|EnvVar { name, value, .. }| (name, value.unwrap_or_default())).collect()
}

/// A Job whose pod a node's kubelet takes without a scheduler.
pub fn job_on(node: &str) -> Value {
    let pod = json!({ "nodeName": node, "containers": [{ "name": "one", "image": "none" }] });
    json!({ "spec": { "backoffLimit": 0, "template": { "spec": pod } } })
}
