//! How a `ManagedOSImage` follows a channel: which of its versions it may take, and who lets it.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Time;

/// Which versions of a channel an image object takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct FollowedChannel {
    /// Name of the `ManagedOSVersionChannel`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Which of its versions: a constraint as `>=1.2, <2`, `^1.4` or `~1.4.2`. Pre-releases only where it names one.
    /// Default: all but pre-releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = crate::form::constraint("constraint"))]
    pub constraint: Option<String>,
    /// Who lets a newer version in.
    #[serde(default)]
    pub promotion: Promotion,
}

/// Who lets a newer version in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// A person, by the annotation `evenkeel.dev/approved-version` with the name of the `ManagedOSVersion`.
    #[default]
    Approved,
    /// The highest version that satisfies the constraint is taken as soon as the channel lists it.
    Automatic,
}

/// Where an image object is in its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelPosition {
    /// Name of the channel that this is about.
    #[serde(default)]
    pub name: String,
    /// Name of the `ManagedOSVersion` that nodes get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its image when it was let in. Where a person has to approve, another image under the same name is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The oldest version from which a node may go to it, for as long as that image is what nodes get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// Name of a newer one that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// Who let `version` in: what the annotation `evenkeel.dev/approved-by` said, or else the program that wrote the
    /// approval. Absent for a version that came by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// When `version` was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
