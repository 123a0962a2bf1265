//! Objects that may not be of the form that this version knows.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::error_boundary::InvalidObject};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;

/// An object, or why it cannot be read and what else is known of it: one that somebody wrote wrongly must not end the
/// watch of all others.
///
/// The client library has one too. That one keeps two copies of each object while it reads it, in a form of its own, and
/// takes longer for it than everything else that is done with an event of a watch.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let read = K::deserialize(&object);
        read.map(Ok).or_else(|error| Ok(Err(invalid(&object, &error).map_err(D::Error::custom)?))).map(Self)
    }
}

fn invalid(object: &Value, error: &serde_json::Error) -> Result<InvalidObject, serde_json::Error> {
    let metadata = object.get("metadata").map(ObjectMeta::deserialize).transpose()?;
    Ok(InvalidObject { error: error.to_string(), metadata: metadata.unwrap_or_default() })
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(known: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(known)
    }

    fn group(known: &Self::DynamicType) -> Cow<'_, str> {
        K::group(known)
    }

    fn version(known: &Self::DynamicType) -> Cow<'_, str> {
        K::version(known)
    }

    fn plural(known: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(known)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::{ManagedOSImage, NodePlan};
    use kube::core::WatchEvent;
    use serde_json::{from_str, json};

    #[test]
    fn an_object_that_cannot_be_read_is_known_by_its_name_and_keeps_no_other_from_being_read() {
        let plan = |name: &str, at: &str| json!({ "metadata": { "name": name, "uid": "u" }, "spec": { "orderedAt": at } });
        let list = json!([plan("n1", "2026-01-01T00:00:00+99:99"), plan("n2", "2026-01-01T00:00:00Z")]);
        let plans: Vec<Guarded<NodePlan>> = from_str(&list.to_string()).unwrap();
        let invalid = plans[0].0.as_ref().unwrap_err();
        assert!(!invalid.error.is_empty());
        assert_eq!(
            (plans[0].meta().name.as_deref(), plans[0].meta().uid.as_deref()),
            (Some("n1"), Some("u"))
        );
        assert!(plans[1].0.as_ref().unwrap().spec.ordered_at.is_some());
        assert!(from_str::<Guarded<NodePlan>>(r#"{"metadata":7}"#).is_err(), "nobody knows what that is");
    }

    #[test]
    fn an_event_is_read_whatever_comes_first_in_it() {
        let object = json!({
            "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage", "metadata": { "name": "os" },
            "spec": { "concurrency": 3, "rollout": { "maxUnavailable": "10%", "maxStaging": 4 } },
        });
        let type_first = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
        let type_last = format!(r#"{{"object":{object},"type":"MODIFIED"}}"#);
        for event in [type_first, type_last] {
            let WatchEvent::Modified(read) = from_str::<WatchEvent<Guarded<ManagedOSImage>>>(&event).unwrap()
            else {
                panic!("{event}");
            };
            assert_eq!(read.0.unwrap().spec.rollout.max_staging, Some(4));
        }
    }
}
