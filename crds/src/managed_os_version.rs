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
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.metadata.upgradeImage"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedOSVersionSpec {
    /// The version's name for people.
    #[schemars(length(min = 1, max = 128))]
    pub version: String,
    /// What is published.
    #[serde(default)]
    pub r#type: VersionType,
    /// Where it is.
    pub metadata: VersionMetadata,
}

/// What is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VersionType {
    /// An OCI image.
    #[default]
    Container,
}

/// Where a version is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionMetadata {
    /// The image: `registry/repository:tag` or `registry/repository@sha256:…`.
    #[schemars(length(min = 1, max = 512))]
    pub upgrade_image: String,
    /// A name for user interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
}
