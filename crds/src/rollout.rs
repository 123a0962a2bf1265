//! `ManagedOSImage.spec.rollout`: in which order nodes take their turns, how many at once, when, and what a failure means.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Time;

/// In which order and how many nodes at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.topologyKey) || !has(self.maxUnavailablePerDomain) && !(has(self.oneDomainAtATime) && self.oneDomainAtATime)")
    .message("maxUnavailablePerDomain and oneDomainAtATime need topologyKey: the label that says which domain a node is in"))]
pub struct Rollout {
    /// How many of the selected nodes may be unavailable at once, for whatever reason: a number, or a percentage
    /// (rounded down, at least 1). Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self > 0 : string(self).matches('^(100|[1-9][0-9]?)%$')")
        .message("maxUnavailable must be a number above 0 or a percentage from \"1%\" to \"100%\""))]
    pub max_unavailable: Option<IntOrString>,
    /// Label of the nodes that says in which domain each is, such as `topology.kubernetes.io/zone`. Nodes without it are a
    /// domain of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 317),
        regex(
            pattern = r"^([a-z0-9]([a-z0-9.\-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._\-]{0,61}[A-Za-z0-9])?$"
        )
    )]
    pub topology_key: Option<String>,
    /// How many of a domain's selected nodes may be unavailable at once, beside `maxUnavailable` for all: a number, or a
    /// percentage (rounded down, at least 1). Absent: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self > 0 : string(self).matches('^(100|[1-9][0-9]?)%$')")
        .message("maxUnavailablePerDomain must be a number above 0 or a percentage from \"1%\" to \"100%\""))]
    pub max_unavailable_per_domain: Option<IntOrString>,
    /// Whether a domain is finished before a node of the next one is started. Nodes that are not Ready, or that cannot
    /// stage, are not waited for.
    #[serde(default)]
    pub one_domain_at_a_time: bool,
    /// How many nodes may pull and write at once. Default 10. Until a first node has committed the image, no more
    /// than `maxUnavailable` nodes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_staging: Option<i32>,
    /// Whether control-plane nodes go first or last. One of them at a time, always, and only while etcd keeps its quorum
    /// (where its pods can be seen). Within that: the annotation `evenkeel.dev/rollout-weight` of a node (a whole number,
    /// default 0, the highest first), then the domain, then the oldest node. The operator's own node comes last.
    #[serde(default)]
    pub order: Order,
    /// How many seconds a node must stay healthy after its reboot before the image is kept. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub soak_seconds: i64,
    /// The first steps of the rollout, one after the other; after the last one come all nodes that are left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub steps: Vec<Step>,
    /// When nodes may be started; absent: always. A node that was started is finished, also when the window closes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<Window>,
    /// When no node is started, whatever `windows` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub exclusions: Vec<Exclusion>,
    /// When nodes may begin to pull and write; absent: always. Staging takes nothing out of service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub staging_windows: Vec<Window>,
    /// What a failure means for the rollout.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// While any of these holds, no node is started; a node that was started is finished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["owner"]))]
    pub pauses: Vec<Pause>,
}

/// Whether control-plane nodes go first or last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Order {
    /// Control-plane nodes before all others.
    #[default]
    ControlPlaneFirst,
    /// Control-plane nodes after all others.
    ControlPlaneLast,
}

/// Somebody's wish that no further node is started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Who paused.
    #[schemars(length(min = 1, max = 128))]
    pub owner: String,
    /// Why.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub reason: String,
    /// When the pause ends by itself; absent: when it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// One step: some nodes, then time or a person's approval before the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.nodes) != has(self.selector)")
    .message("a step has exactly one of nodes and selector"))]
pub struct Step {
    /// How many nodes run the image when this step is done, those of earlier steps included: a number, or a percentage of
    /// the selected ones (rounded down, at least 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // A rule in CEL would say it better, but may read three megabytes of text in each step, and is refused for that.
    #[schemars(extend("minimum" = 1, "pattern" = r"^(100|[1-9][0-9]?)%$"))]
    pub nodes: Option<IntOrString>,
    /// Which nodes. They wait for this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Seconds that must pass after the step's last node before the next step.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub soak_seconds: i64,
    /// Whether somebody must approve before the next step, with the annotation `evenkeel.dev/approve` whose value the
    /// status line gives.
    #[serde(default)]
    pub approval: bool,
}

/// A time that comes again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it begins: minute, hour, day of month, month, day of week, as for cron.
    #[schemars(length(max = 128), regex(pattern = r"^[0-9A-Za-z*,/\-]+( [0-9A-Za-z*,/\-]+){4}$"))]
    pub cron: String,
    /// How many seconds it is open.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: i64,
    /// The zone that `cron` is meant in, such as `Europe/Berlin`. Where clocks are set forward, a beginning that is
    /// skipped is when they are set; where they are set back, one that comes twice is the first.
    #[serde(default = "utc")]
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+){0,2}$")
    )]
    #[x_kube(validation = Rule::new("timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 0")
        .message("timeZone must be the name of an IANA time zone, such as Europe/Berlin"))]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// When no node is started: once, or again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.window) ? !has(self.from) && !has(self.until) : has(self.from) && has(self.until) && self.from < self.until")
    .message("an exclusion has either a window, or from and a later until"))]
pub struct Exclusion {
    /// Why, for people.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub reason: String,
    /// From this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Until this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// What a failure means for the rollout. A node on which the image failed counts as one that is unavailable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// Whether a failure stops the rollout, whatever `maxFailures` says, while no node has committed the image yet.
    #[serde(default)]
    pub on_first_failure: OnFirstFailure,
    /// With how many failed nodes the rollout still goes on: a number, or a percentage of the selected ones (rounded down).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 : string(self).matches('^(100|[1-9]?[0-9])%$')")
        .message("maxFailures must be a number from 0 or a percentage from \"0%\" to \"100%\""))]
    pub max_failures: Option<IntOrString>,
    /// With so many failures after each other, without a success in between, the rollout stops. Absent: they do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_consecutive_failures: Option<i32>,
    /// What is done when the rollout stops.
    #[serde(default)]
    pub action: FailureAction,
    /// How often a node tries the image. Only failures that say nothing about the image are tried again.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,
    /// Seconds before the second attempt; they double with each further one, up to a day.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub backoff_seconds: i64,
    /// Seconds after which an image that nodes came back from may be asked for again. Absent: never, unless the annotation
    /// `evenkeel.dev/allow-digest` names its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 315_360_000))]
    pub deny_seconds: Option<i64>,
}

fn once() -> i32 {
    1
}

fn five_minutes() -> i64 {
    300
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            on_first_failure: OnFirstFailure::Stop,
            max_failures: None,
            max_consecutive_failures: None,
            action: FailureAction::Pause,
            max_attempts: once(),
            backoff_seconds: five_minutes(),
            deny_seconds: None,
        }
    }
}

/// Whether a failure stops the rollout while no node has committed the image yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFirstFailure {
    /// It does.
    #[default]
    Stop,
    /// It counts as any other.
    Continue,
}

/// What is done when a rollout stops after failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureAction {
    /// No other node is started. What was started is finished, each node on its own merit.
    #[default]
    Pause,
    /// Nodes that have rebooted into the image and have not kept it go back at once.
    RevertFailed,
    /// Nodes that have kept it go back too, as many at once as may be unavailable.
    RevertAll,
}
