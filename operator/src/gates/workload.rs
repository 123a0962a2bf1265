//! Workloads that must be available.

use evenkeel_crds::health_gate::{WorkloadGate, WorkloadKind};
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::Value;

use super::{
    Verdict,
    objects::{Wanted, find},
};
use crate::{api::ApiError, context::Context};

/// Looks at a gate's workloads.
pub async fn judge(context: &Context, gate: &WorkloadGate) -> Result<Verdict, ApiError> {
    let kind = match gate.kind {
        WorkloadKind::Deployment => "Deployment",
        WorkloadKind::StatefulSet => "StatefulSet",
        WorkloadKind::DaemonSet => "DaemonSet",
    };
    let wanted = Wanted {
        api_version: "apps/v1",
        kind,
        namespace: Some(&gate.namespace),
        name: gate.name.as_deref(),
        selector: gate.selector.as_ref(),
    };
    let objects = match find(context, &wanted).await? {
        Ok(objects) => objects,
        Err(verdict) => return Ok(verdict),
    };
    let trouble = objects.iter().find_map(|object| {
        let why = unavailable(gate.kind, object)?;
        Some(format!("{kind} {}/{}: {why}", gate.namespace, object.name_any()))
    });
    Ok(trouble.map_or(Verdict::Met, Verdict::NotMet))
}

/// Why a workload is not available.
fn unavailable(kind: WorkloadKind, object: &DynamicObject) -> Option<String> {
    let number = |path: &str| object.data.pointer(path).and_then(Value::as_i64);
    if number("/status/observedGeneration") < object.metadata.generation {
        return Some("its controller has not seen its last change yet".into());
    }
    let (have, want) = match kind {
        WorkloadKind::Deployment => {
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
            let available = conditions.into_iter().flatten().find(|one| one["type"] == "Available");
            let have = number("/status/availableReplicas").unwrap_or(0);
            let want = number("/spec/replicas").unwrap_or(1);
            let is = available.is_some_and(|condition| condition["status"] == "True");
            return (!is).then(|| format!("not Available, {have} of {want} replicas are"));
        }
        WorkloadKind::StatefulSet => {
            (number("/status/availableReplicas"), number("/spec/replicas").unwrap_or(1))
        }
        WorkloadKind::DaemonSet => {
            (number("/status/numberAvailable"), number("/status/desiredNumberScheduled").unwrap_or(0))
        }
    };
    let have = have.unwrap_or(0);
    (have < want).then(|| format!("{have} of {want} are available"))
}

// Values are written where they are handed over.
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(kind: WorkloadKind, spec: Value, status: Value) -> Option<String> {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "K", "metadata": { "name": "w", "generation": 2 },
            "spec": spec, "status": status,
        });
        unavailable(kind, &serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_workload_is_available_when_its_controller_says_so_of_its_last_change() {
        let deployment = |generation: i64, status: &str| {
            let condition = json!({ "type": "Available", "status": status });
            let status = json!({ "observedGeneration": generation, "conditions": [condition] });
            seen(WorkloadKind::Deployment, json!({ "replicas": 3 }), status)
        };
        assert_eq!(deployment(2, "True"), None);
        assert!(deployment(1, "True").unwrap().contains("last change"));
        assert_eq!(deployment(2, "False").unwrap(), "not Available, 0 of 3 replicas are");
        let set = |have: i64| {
            let status = json!({ "observedGeneration": 2, "availableReplicas": have });
            seen(WorkloadKind::StatefulSet, json!({ "replicas": 2 }), status)
        };
        assert_eq!((set(2), set(1).unwrap().as_str()), (None, "1 of 2 are available"));
        let status = json!({ "observedGeneration": 2, "desiredNumberScheduled": 4, "numberAvailable": 3 });
        assert_eq!(seen(WorkloadKind::DaemonSet, json!({}), status).unwrap(), "3 of 4 are available");
    }
}
