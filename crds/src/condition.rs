//! Conditions as kstatus understands them, and how a new set replaces an old one.

use jiff::{Timestamp, fmt::temporal::Pieces};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

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

/// A point in time, RFC 3339, in UTC. The last hours of the year 9999, which stand for "never", are those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Time(pub Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().or_else(|error| latest(&text).ok_or(error)).map(Self).map_err(D::Error::custom)
    }
}

/// The latest time that there is, if the text is one of the year 9999 that comes after it: the API server takes those.
fn latest(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let is_whole = pieces.time().is_some() && pieces.to_numeric_offset().is_some();
    (is_whole && pieces.date().year() == 9999).then_some(Timestamp::MAX)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_the_api_server_takes_it() {
        let read = |text: &str| serde_json::from_value::<Time>(text.into()).map(|time| time.0);
        let noon: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for text in ["2026-01-01T12:00:00Z", "2026-01-01t12:00:00z", "2026-01-01T13:00:00.000+01:00"] {
            assert_eq!(read(text).unwrap(), noon, "{text}");
        }
        for text in
            ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-12:00", "9999-12-30T22:00:00-00:01"]
        {
            assert_eq!(read(text).unwrap(), Timestamp::MAX, "{text}");
        }
        let soon = read("9999-12-30T21:00:00Z").unwrap();
        assert!(soon < Timestamp::MAX && serde_json::to_value(Time(Timestamp::MAX)).is_ok());
        for text in ["9999-12-31", "9999-12-31T23:59:59", "2026-01-01T00:00:00+99:99", "never"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
