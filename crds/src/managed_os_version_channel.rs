//! `ManagedOSVersionChannel`: where versions come from.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::{Condition, Time},
    managed_os_image::Pull,
    verification::Verification,
};

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
    printcolumn(name = "Versions", type_ = "integer", json_path = ".status.versions.listed"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(name = "Synced", type_ = "date", json_path = ".status.lastSynced"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.options.uri) == (self.type == 'json')")
    .message("type json needs options.uri, and no other type has it"))]
#[x_kube(validation = Rule::new("has(self.options.image) == (self.type == 'custom')")
    .message("type custom needs options.image, and no other type has it"))]
#[x_kube(validation = Rule::new("has(self.options.repository) == (self.type == 'registry')")
    .message("type registry needs options.repository, and no other type has it"))]
#[x_kube(validation = Rule::new("!has(self.options.constraint) || self.type == 'registry'")
    .message("options.constraint is for type registry alone"))]
#[x_kube(validation = Rule::new("!has(self.verification) || self.type == 'custom'")
    .message("verification is for type custom alone: only an OCI artifact or image can have been signed"))]
#[x_kube(validation = Rule::new("self.type != 'json' || !has(self.options.uri) || !self.options.uri.startsWith('http:') || (has(self.pull) && has(self.pull.plainHttp) && self.pull.plainHttp)")
    .message("options.uri without TLS needs pull.plainHttp: whoever is between could change the list"))]
pub struct ManagedOSVersionChannelSpec {
    /// How the list of versions is fetched.
    pub r#type: ChannelType,
    /// Where the list is.
    pub options: ChannelOptions,
    /// Time between two fetches, such as `30m` or `1h30m`; a minute at least, a week at most.
    #[serde(default = "an_hour")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && size(self) > 0 && \
        duration(self) >= duration('1m') && duration(self) <= duration('168h')")
        .message("syncInterval must be hours, minutes and seconds, such as 30m or 1h30m, from 1m to 168h"))]
    pub sync_interval: String,
    /// Whether the channel is fetched at all. The versions of one that is not stay as they are.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether versions that the channel does not list any more are deleted. Without it they stay, with the label
    /// `evenkeel.dev/no-longer-in-sync`. One that a `ManagedOSImage` or a node uses stays in any case.
    #[serde(default)]
    pub delete_no_longer_in_sync_versions: bool,
    /// What is put before the image of each version, such as `mirror.example:5000`, for clusters that reach no other
    /// registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::form::matches(r"^[a-z0-9.\-]+(:[0-9]+)?(/[a-z0-9._\-]+)*/?$",
        "registry must be a registry, with a path or not, such as mirror.example:5000/all, without https://"))]
    pub registry: Option<String>,
    /// How the list is pulled. Does not hold for the images in it.
    #[serde(default)]
    pub pull: Pull,
    /// Who must have signed the artifact or image that carries the list. Without it any is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

fn an_hour() -> String {
    "1h".to_owned()
}

fn yes() -> bool {
    true
}

/// How the list of versions is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelType {
    /// A JSON array of versions behind an HTTPS address, as Elemental's channels publish it.
    Json,
    /// The same array as the file `channel.json` in an OCI artifact, or at the root of an image.
    Custom,
    /// The tags of a repository that are semantic versions: each is a version.
    Registry,
}

/// Where the list is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct ChannelOptions {
    /// The address of the JSON document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = crate::form::matches(r"^https?://[^/@]+(/.*)?$",
        "uri must be the list's address and begin with https://, without user and password"))]
    pub uri: Option<String>,
    /// The artifact or image that carries `channel.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = crate::form::image_of_registry("image"))]
    pub image: Option<String>,
    /// The repository, with its registry and without a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 384))]
    #[x_kube(validation = crate::form::repository("repository"))]
    pub repository: Option<String>,
    /// Which tags: a constraint as `>=1.2, <2`, `^1.4` or `~1.4.2`. Pre-releases only where it names one. Default: all
    /// but pre-releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = crate::form::constraint("constraint"))]
    pub constraint: Option<String>,
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
    /// `sha256:…` of the list: of the document, of the artifact or image, or of all tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How many versions there are.
    #[serde(default)]
    pub versions: VersionCounts,
    /// `Ready`, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many versions there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionCounts {
    /// Versions that the channel lists.
    pub listed: i64,
    /// Versions that it does not list any more and that are still there.
    pub retired: i64,
}
