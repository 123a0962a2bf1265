//! `ManagedOSImage`: what a set of nodes should run, and how to get there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cloud_config::CloudConfig,
    condition::{Condition, Time},
    drain::Drain,
    following::{ChannelPosition, FollowedChannel},
    health_gate::HealthGate,
    hook::Hook,
    rollout::Rollout,
    rollout_status::{Denied, PastRollout, Preview, Progress, RunNow},
    verification::Verification,
};

/// Nodes that match `nodeSelector` shall run this image.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "ManagedOSImage",
    plural = "managedosimages",
    shortname = "mosi",
    category = "evenkeel",
    status = "ManagedOSImageStatus",
    doc = "What a set of nodes should run, and how to get there.",
    crates(
        kube_core = "kube_core",
        k8s_openapi = "k8s_openapi",
        schemars = "schemars",
        serde = "serde",
        serde_json = "serde_json"
    ),
    derive = "PartialEq",
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.total"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.nodes.updated"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.osImage), has(self.managedOSVersionName), has(self.channel)].filter(set, set).size() == 1")
    .message("exactly one of osImage, managedOSVersionName and channel must be set"))]
#[x_kube(validation = Rule::new("!(has(self.concurrency) && has(self.rollout) && has(self.rollout.maxUnavailable))")
    .message("concurrency is another name of rollout.maxUnavailable: set one of them"))]
pub struct ManagedOSImageSpec {
    /// The image to run: `registry/repository:tag` or `registry/repository@sha256:…`. A tag is resolved to a digest
    /// once per rollout; a tag that moves later changes nothing until this field is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = crate::form::image("osImage"))]
    pub os_image: Option<String>,
    /// Name of a `ManagedOSVersion` whose `metadata.upgradeImage` is the image to run.
    #[serde(default, rename = "managedOSVersionName", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub managed_os_version_name: Option<String>,
    /// A channel whose newest version is the one to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<FollowedChannel>,
    /// Configuration of the nodes beside the image, in the dialect of Elemental and Kairos (`stages`) or in cloud-init's.
    /// It is applied at each boot, after what the machine has of its own; a change is rolled out as a new image is, with a
    /// reboot or, as `reboot.onCloudConfigChange` says, without.
    /// Everybody who may read this object or node plans can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_config: Option<CloudConfig>,
    /// The image that the recovery slots shall hold, with its digest: `registry/repository@sha256:…`. A node writes it when it has
    /// kept the image to run, and nothing else is to be done. Absent: recovery slots are left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = crate::form::pinned("recoveryImage"))]
    pub recovery_image: Option<String>,
    /// Which nodes. An absent or empty selector selects all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// How many nodes at once; the older name of `rollout.maxUnavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: Option<i32>,
    /// Whether a node is cordoned before it reboots. Draining implies it.
    #[serde(default = "yes")]
    pub cordon: bool,
    /// How pods leave a node before it reboots. An absent field means the defaults below.
    #[serde(default)]
    pub drain: Drain,
    /// In which order and how many nodes at once.
    #[serde(default)]
    pub rollout: Rollout,
    /// What must be true of a node and the cluster before, while and after it is updated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub health_gates: Vec<HealthGate>,
    /// How the image is pulled.
    #[serde(default)]
    pub pull: Pull,
    /// Who must have signed the image. Without it any image is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Time limits of a node's reboot.
    #[serde(default)]
    pub reboot: Reboot,
    /// What is run at steps of each node's turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub hooks: Vec<Hook>,
    /// Nothing is begun, and `status.preview` says what would be: in which order, how many at once, what is in the way.
    /// What was begun before is finished.
    #[serde(default)]
    pub dry_run: bool,
}

fn yes() -> bool {
    true
}

/// How the image is pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct Pull {
    /// Speak plain HTTP to the image's registry. Nobody who can change packets on the way can change the image (it
    /// is pinned by digest), but credentials are sent in clear.
    #[serde(default)]
    pub plain_http: bool,
    /// Where else the images of a registry can be had, in the order in which they are asked. A mirror that fails is
    /// passed over; the registry itself comes last. Credentials for a mirror are looked up by the mirror's own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub mirrors: Vec<Mirror>,
    /// Certificates (PEM) that are trusted beside those of the machine, for registries and mirrors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    #[x_kube(validation = crate::form::certificates())]
    pub ca_bundle: Option<String>,
    /// The proxy to registries and mirrors; absent: what the environment of operator and agent says
    /// (`HTTPS_PROXY`, `NO_PROXY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Bytes that one node takes from registries in a second; absent: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16_384))]
    pub max_bytes_per_second: Option<i64>,
    /// Let everything else on the node use its disks first: the image is written only while they are idle, as far as
    /// their I/O scheduler knows of priorities (BFQ and mq-deadline do).
    #[serde(default)]
    pub background: bool,
}

/// Where else the images of a registry can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// The registry as images name it, such as `docker.io` or `registry.example:5000`; `*` for all.
    #[schemars(length(max = 253))]
    #[x_kube(validation = crate::form::matches(r"^(\*|[a-z0-9.\-]+(:[0-9]+)?)$",
        "registry must be * or the name of a registry as images have it, such as docker.io or registry.example:5000"))]
    pub registry: String,
    /// The mirror's address, such as `https://mirror.example:5000`. A path is put before the names of repositories.
    #[schemars(length(max = 512))]
    #[x_kube(validation = crate::form::address("https://mirror.example:5000", true))]
    pub url: String,
    /// Whether it is believed what a tag means, and what signatures an image has. Everything else has a digest that is
    /// checked, whoever gives it.
    #[serde(default)]
    pub resolve: bool,
}

/// A proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its address, such as `http://proxy.example:3128`. Everybody who may read this object can read it.
    #[schemars(length(max = 512))]
    #[x_kube(validation = crate::form::address("http://proxy.example:3128", false))]
    pub url: String,
    /// What is reached without it: names (with all names below them), addresses and networks, such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub no_proxy: Vec<String>,
}

/// Time limits of a node's reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reboot {
    /// Seconds that a drained node waits before it may reboot, such as for load balancers to notice.
    #[schemars(range(min = 0, max = 3600))]
    pub delay_seconds: i64,
    /// Seconds from the approval to reboot until the node must be `Ready` on the new image.
    #[schemars(range(min = 30, max = 86_400))]
    pub deadline_seconds: i64,
    /// Seconds from the boot of the new image until it must be committed. When they are over, the node goes back to
    /// its old slot by itself, whether or not the cluster can be reached.
    #[schemars(range(min = 30, max = 86_400))]
    pub commit_deadline_seconds: i64,
    /// Whether a node reboots for a change of `cloudConfig` alone. Without it such a change is applied to the running system:
    /// no cordon, no drain, and the same trial, gates and way back. The node must run an image whose `init` knows of it.
    pub on_cloud_config_change: bool,
}

impl Default for Reboot {
    fn default() -> Self {
        // 15 min to Ready covers servers with slow firmware; twice that to be committed leaves time for gates.
        Self {
            delay_seconds: 0,
            deadline_seconds: 900,
            commit_deadline_seconds: 1800,
            on_cloud_config_change: true,
        }
    }
}

/// What the operator saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedOSImageStatus {
    /// `metadata.generation` that this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The resolved image, `repository@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What `image` was resolved from; when the spec asks for something else, it is resolved again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_from: Option<String>,
    /// SHA-256 of the `verification` that the image was checked by; another one is checked before more is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<String>,
    /// The image's version, from its `org.opencontainers.image.version` label, or else its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the image object is in the channel that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelPosition>,
    /// One line for people: what is going on, why not more, what next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The failure that stopped the rollout. It stays when the plan that told of it is deleted, until the node's agent
    /// has reported again, or another image is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// Images that nodes came back from, at most 16: none gets them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Denied>,
    /// How far the rollout of `image` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Progress>,
    /// The rollouts before it, the last one first, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastRollout>,
    /// When nodes may be started again; absent while they may, or while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window: Option<Time>,
    /// Who has windows ignored, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_now: Option<RunNow>,
    /// With `dryRun`: what would be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// How many nodes are where.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// How many nodes are in each phase, by the phase's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, i64>,
    /// `Ready`, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The failure that stopped a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Digest of the image, `sha256:…`; with a cloud-config `+` and the beginning of that one's SHA-256.
    pub digest: String,
    /// The node on which it failed.
    pub node: String,
    /// What happened there.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// Whether it was booted and failed. Then no node gets it any more; otherwise it was the node that could not take
    /// it, and taking that node out of the selection lets the others go on.
    #[serde(default)]
    pub condemned: bool,
}

/// How many nodes are where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Nodes that the selector selects.
    pub total: i64,
    /// Nodes that run the image, committed.
    pub updated: i64,
    /// Nodes out of service for this rollout, from cordon to Ready.
    pub updating: i64,
    /// Nodes on which the image failed.
    pub failed: i64,
}
