//! `ManagedOSVersion`: one published OS version.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One published OS version.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "ManagedOSVersion",
    plural = "managedosversions",
    shortname = "mosv",
    category = "evenkeel",
    doc = "One published OS version.",
    crates(
        kube_core = "kube_core",
        k8s_openapi = "k8s_openapi",
        schemars = "schemars",
        serde = "serde",
        serde_json = "serde_json"
    ),
    derive = "PartialEq",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Channel", type_ = "string", json_path = ".metadata.labels.evenkeel\\.dev/channel"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.metadata.upgradeImage"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.type) && self.type == 'iso') || has(self.metadata.upgradeImage)")
    .message("a version of type container needs metadata.upgradeImage"))]
#[x_kube(validation = Rule::new("!(has(self.type) && self.type == 'iso') || has(self.metadata.uri)")
    .message("a version of type iso needs metadata.uri"))]
pub struct ManagedOSVersionSpec {
    /// The version's name for people; a semantic version, such as `v1.2.3`, where a `ManagedOSImage` follows a channel.
    #[schemars(length(min = 1, max = 128))]
    pub version: String,
    /// What is published.
    #[serde(default)]
    pub r#type: VersionType,
    /// The oldest version, as a semantic version, from which a node may go to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub min_version: Option<String>,
    /// Where it is.
    pub metadata: VersionMetadata,
}

/// What is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VersionType {
    /// An OCI image, which nodes can be upgraded to.
    #[default]
    Container,
    /// An image of a disk that installs machines. It is listed, and nothing is done with it.
    Iso,
}

/// Where a version is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionMetadata {
    /// The image: `registry/repository:tag` or `registry/repository@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub upgrade_image: Option<String>,
    /// Where the ISO is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub uri: Option<String>,
    /// A name for user interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// When it was published, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub created: Option<i64>,
}
