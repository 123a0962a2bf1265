//! What must be true of the cluster before, while and after a node is updated.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{condition::ConditionStatus, hook::JobTemplate};

/// One thing that must be true, asked anew for each node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.nodeCondition), has(self.cel), has(self.workload), has(self.prometheus), has(self.annotation), \
     has(self.job)].filter(is, is).size() == 1")
    .message("a gate is exactly one of nodeCondition, cel, workload, prometheus, annotation and job"))]
pub struct HealthGate {
    /// A name for messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// When it must be met. Default: after the reboot.
    #[serde(default = "after")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub when: Vec<GateTime>,
    /// Seconds in which it must be met: after the drain, or after the approval to reboot. Then the node goes back.
    /// Before the node is started, it is only said that the time is over. Default: `reboot.deadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: Option<i64>,
    /// Seconds between two looks.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i64,
    /// How many looks in a row must find it met.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub threshold: i32,
    /// What it counts for when it cannot be found out, such as because Prometheus does not answer.
    #[serde(default)]
    pub on_error: OnGateError,
    /// A condition of the Node. It is looked at whenever it changes; `intervalSeconds` and `threshold` are for the
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_condition: Option<NodeConditionGate>,
    /// An expression over objects of any kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cel: Option<CelGate>,
    /// Workloads that must be available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadGate>,
    /// A query to Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusGate>,
    /// A question to somebody else, by annotations of the Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotation: Option<AnnotationGate>,
    /// A Job that must succeed. One that failed is run again after `intervalSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobGate>,
}

fn after() -> Vec<GateTime> {
    vec![GateTime::After]
}

fn ten() -> i64 {
    10
}

fn one() -> i32 {
    1
}

/// When a gate must be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GateTime {
    /// Before the node's turn begins. Until then nothing is done to it.
    Before,
    /// Between the drain and the reboot.
    During,
    /// On trial, before the image is kept, and through the soak time.
    After,
}

/// What a gate counts for when it cannot be found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnGateError {
    /// It is not met.
    #[default]
    Block,
    /// It is met.
    Ignore,
}

/// A condition that the Node must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConditionGate {
    /// The condition's type.
    #[schemars(length(min = 1, max = 316))]
    pub r#type: String,
    /// The status that it must have: `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
}

/// An expression over objects of any kind. There must be at least one object, and it must hold for each of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.name) && has(self.selector))")
    .message("objects are named or selected: set one of name and selector"))]
pub struct CelGate {
    /// Such as `ceph.rook.io/v1`. The operator must have been given the right to read this kind.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// Such as `CephCluster`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The namespace; absent: all of them, or an object that is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The one object of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Objects with these labels; without `name` and `selector` all objects of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// In CEL, with `object` and, as the name of the node that is asked for, `node`:
    /// `has(object.status.ceph) && object.status.ceph.health == 'HEALTH_OK'`. It must come to `true`.
    #[schemars(length(min = 1, max = 2048))]
    pub expression: String,
}

/// Workloads that must be available.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.selector)")
    .message("workloads are named or selected: set one of name and selector"))]
pub struct WorkloadGate {
    /// What they are.
    pub kind: WorkloadKind,
    /// Their namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The one of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Those with these labels; at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// Its condition `Available` must be true.
    Deployment,
    /// All its replicas must be available.
    StatefulSet,
    /// It must be available on all nodes where it should be.
    DaemonSet,
}

/// An instant query to Prometheus, or to what speaks its HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct PrometheusGate {
    /// Its address, such as `http://prometheus.monitoring:9090`.
    #[schemars(length(max = 512))]
    #[x_kube(validation = crate::form::address("http://prometheus.monitoring:9090", true))]
    pub url: String,
    /// The query. `$(NODE)` in it becomes the name of the node that is asked for.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// What the answer must be.
    #[serde(default)]
    pub expect: PrometheusAnswer,
    /// Certificates (PEM) that are trusted beside those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    #[x_kube(validation = crate::form::certificates())]
    pub ca_bundle: Option<String>,
}

/// What the answer to a query must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrometheusAnswer {
    /// At least one series, or a number that is not 0.
    #[default]
    NotEmpty,
    /// No series, or the number 0: for queries that find trouble, such as `ALERTS{severity="critical"}`.
    Empty,
}

/// A question to somebody else. The operator sets the annotation `request` of the Node to a value that names the turn;
/// whoever is asked sets the annotation `answer` to the same value once the node may go on. Any other value of `answer`
/// is shown as the reason why not yet. The operator removes `request` when the answer is there or not needed any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.request != self.answer")
    .message("request and answer are two annotations: each has one writer"))]
pub struct AnnotationGate {
    /// The annotation that the operator sets.
    #[schemars(length(min = 3, max = 316))]
    #[x_kube(validation = crate::form::annotation("request"))]
    pub request: String,
    /// The annotation that is waited for.
    #[schemars(length(min = 3, max = 316))]
    #[x_kube(validation = crate::form::annotation("answer"))]
    pub answer: String,
}

/// A Job that must succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobGate {
    /// The Job; see `hooks`.
    pub template: JobTemplate,
}
