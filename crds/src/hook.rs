//! What is run at steps of a node's turn.

use kube_derive::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A Job that is run once at a step of each node's turn, in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.onFailure) || self.onFailure != 'Revert' || !(self.when in ['AfterCommit', 'AfterRevert'])")
    .message("nothing can be reverted any more after AfterCommit and AfterRevert: set onFailure to Block or Ignore"))]
pub struct Hook {
    /// Its name, for messages and a part of the Job's name.
    #[schemars(length(min = 1, max = 30))]
    #[x_kube(validation = crate::form::matches(r"^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$",
        "name must be lower-case letters, digits and -, for it is a part of the Job's name"))]
    pub name: String,
    /// At which step. Hooks of one step are run one after the other, in the order in which they stand here.
    pub when: HookTime,
    /// The Job.
    pub template: JobTemplate,
    /// Seconds in which it must succeed, all its attempts together.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: i64,
    /// What becomes of the node when it does not.
    #[serde(default)]
    pub on_failure: OnHookFailure,
}

fn ten_minutes() -> i64 {
    600
}

/// At which step of a node's turn a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookTime {
    /// The turn has begun, and the node serves as before.
    BeforeCordon,
    /// Its pods have left.
    AfterDrain,
    /// It runs the new image on trial, is Ready, and the host's own checks have passed.
    AfterReboot,
    /// It keeps the new image, and is not yet given back.
    AfterCommit,
    /// It is back on its old image, or failed before its reboot, and is not yet given back.
    AfterRevert,
}

impl HookTime {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeCordon => "BeforeCordon",
            Self::AfterDrain => "AfterDrain",
            Self::AfterReboot => "AfterReboot",
            Self::AfterCommit => "AfterCommit",
            Self::AfterRevert => "AfterRevert",
        }
    }
}

/// What becomes of a node whose hook failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnHookFailure {
    /// It waits. Once its Job is deleted, the hook is run again.
    #[default]
    Block,
    /// It goes on.
    Ignore,
    /// It goes back to its old image.
    Revert,
}

/// A Job as in a `CronJob`'s `jobTemplate`: `metadata` and `spec`. Each container gets the environment variables
/// `EVENKEEL_NODE`, `EVENKEEL_IMAGE`, `EVENKEEL_PLAN` and `EVENKEEL_STEP`. The operator names the Job and bounds its
/// time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobTemplate(pub Value);

impl JsonSchema for JobTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JobTemplate".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "required": ["spec"],
            "properties": {
                "metadata": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
        })
    }
    fn inline_schema() -> bool {
        true
    }
}
