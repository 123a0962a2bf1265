//! How pods leave a node before it reboots, and what keeps others away meanwhile.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How pods leave a node.
// Each flag is a choice of its own, as `kubectl drain` has them.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// Whether pods are evicted at all.
    pub enabled: bool,
    /// Whether every eviction is tried as a dry run before the node is cordoned. While a pod may not leave, such as for
    /// its `PodDisruptionBudget`, the node is not started, and others are tried in its place.
    pub dry_run: bool,
    /// Grace period in seconds for every pod; absent: each pod's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub grace_period: Option<i64>,
    /// Seconds from the begin of the drain, behind all `BeforeCordon` hooks, after which `onTimeout` says what becomes of
    /// a drain that did not end.
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: i64,
    /// What becomes of a drain that did not end in time.
    pub on_timeout: DrainTimeout,
    /// Whether pods that no controller owns are evicted too (they do not come back). Without it such a pod stops
    /// the drain, with a reason that names the pod.
    pub force: bool,
    /// Whether pods with `emptyDir` volumes are evicted (their data is lost).
    pub delete_emptydir_data: bool,
    /// Whether pods of `DaemonSets`, which come back at once, are left alone. Without it such a pod stops the drain.
    pub ignore_daemon_sets: bool,
    /// Which pods leave; absent: all of them. The others stay and go through the reboot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Seconds past the end of its grace period after which a pod that is still there is waited for no longer; absent:
    /// each pod is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub skip_wait_for_delete_timeout: Option<i64>,
    /// In which order pods are asked to leave.
    pub order: EvictionOrder,
    /// Whether the volumes of the pods that left must be detached from the node before it reboots. Otherwise they may
    /// be attached elsewhere only minutes later.
    pub wait_for_volumes: bool,
    /// Whether nodes that still wait for the image get the taint `evenkeel.dev/outdated:PreferNoSchedule`, so that pods
    /// that leave one node go to nodes that are done rather than to the next in line.
    pub prefer_no_schedule: bool,
    /// A taint that a node has from its cordon until it is healthy on the new image and given back. It keeps away what
    /// a cordon does not, such as pods of `DaemonSets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taint: Option<TrialTaint>,
}

impl Default for Drain {
    fn default() -> Self {
        // An hour: longer than any sane termination grace period, shorter than a night.
        Self {
            enabled: true,
            dry_run: true,
            grace_period: None,
            timeout_seconds: 3600,
            on_timeout: DrainTimeout::default(),
            force: false,
            delete_emptydir_data: true,
            ignore_daemon_sets: true,
            pod_selector: None,
            skip_wait_for_delete_timeout: None,
            order: EvictionOrder::default(),
            wait_for_volumes: true,
            prefer_no_schedule: false,
            taint: None,
        }
    }
}

/// What becomes of a drain that did not end in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainTimeout {
    /// It goes on, and status and an event say that it is overdue.
    Retry,
    /// The node is uncordoned and counts as failed.
    #[default]
    UncordonAndFail,
    /// Pods that still refuse are deleted, whatever their `PodDisruptionBudget` says, and waited for until the end of
    /// their grace period. The chart's `operator.forceDrain` gives the operator the right to do so.
    Force,
}

/// In which order pods are asked to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvictionOrder {
    /// All at once.
    #[default]
    AllAtOnce,
    /// By their priority, the lowest first; those of the next priority once all before them are gone.
    ByPriority,
}

/// A taint that a node has while it is not healthy on the new image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct TrialTaint {
    /// Its key. One that somebody else sets too is not for this.
    #[schemars(length(min = 1, max = 316))]
    #[x_kube(validation = crate::form::matches(
        r"^([a-z0-9.\-]+/)?[A-Za-z0-9]([A-Za-z0-9._\-]*[A-Za-z0-9])?$",
        "key must be the key of a taint: letters, digits, -, _ and ., such as storage.example/trial"))]
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = crate::form::matches(
        r"^([A-Za-z0-9]([A-Za-z0-9._\-]*[A-Za-z0-9])?)?$",
        "value must be the value of a taint: letters, digits, -, _ and ., none but letters and digits at its ends"))]
    pub value: Option<String>,
    /// Its effect.
    #[serde(default)]
    pub effect: TrialEffect,
}

/// What a taint does. `NoExecute` is not among them: it would evict pods without asking their disruption budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrialEffect {
    /// No pod is put there that does not tolerate it.
    #[default]
    NoSchedule,
    /// Pods are put there only when there is no other place.
    PreferNoSchedule,
}
