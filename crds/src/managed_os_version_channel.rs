//! `ManagedOSVersionChannel`: where versions come from.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, Time};

/// Where versions come from.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "ManagedOSVersionChannel",
    plural = "managedosversionchannels",
    shortname = "mosvc",
    category = "evenkeel",
    status = "ManagedOSVersionChannelStatus",
    doc = "Where versions come from: the operator keeps a ManagedOSVersion for each that it lists.",
    crates(
        kube_core = "kube_core",
        k8s_openapi = "k8s_openapi",
        schemars = "schemars",
        serde = "serde",
        serde_json = "serde_json"
    ),
    derive = "PartialEq",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Synced", type_ = "date", json_path = ".status.lastSynced"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedOSVersionChannelSpec {
    /// How the list of versions is fetched.
    pub r#type: ChannelType,
    /// Where the list is.
    pub options: ChannelOptions,
    /// Seconds between two fetches. Default 3600.
    #[serde(default = "an_hour")]
    #[schemars(range(min = 60, max = 604_800))]
    pub sync_interval_seconds: i64,
    /// Whether the channel is fetched at all.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn an_hour() -> i64 {
    3600
}

fn yes() -> bool {
    true
}

/// How the list of versions is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelType {
    /// A JSON array of versions behind an HTTP or HTTPS address, as Elemental's channels publish it.
    Json,
}

/// Where the list is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelOptions {
    /// The address of the JSON document.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://.+"))]
    pub uri: String,
}

/// What the last fetch gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedOSVersionChannelStatus {
    /// `metadata.generation` that this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the list was last fetched with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_synced: Option<Time>,
    /// `Ready`, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
