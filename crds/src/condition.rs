//! Conditions as kstatus understands them, and how a new set replaces an old one.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// It is not known whether the condition holds.
    Unknown,
}

/// One aspect of an object's state. The fields are those of `meta/v1` `Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the aspect: `Ready`, `Reconciling` or `Stalled`.
    #[schemars(length(max = 63))]
    pub r#type: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word for programs.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// One sentence for people: what, which thing, and what can be done.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// `metadata.generation` that this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// A point in time, RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub Timestamp);

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
    fn inline_schema() -> bool {
        true
    }
}

/// Takes over the transition time of each condition whose status did not change, so that an equal set stays equal
/// and no write is needed for it.
pub fn keep_transition_times(mut new: Vec<Condition>, old: &[Condition]) -> Vec<Condition> {
    for condition in &mut new {
        if let Some(before) =
            old.iter().find(|o| o.r#type == condition.r#type && o.status == condition.status)
        {
            condition.last_transition_time = before.last_transition_time;
        }
    }
    new
}
