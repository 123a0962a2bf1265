//! A cloud-config that the cluster gives to nodes, and what it makes of an image: a release.

use std::borrow::Cow;

use kube_derive::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of a document: with 127 layers and their labels it fits into a slot record of 64 KiB.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 10;
/// The first line of documents in cloud-init's dialect.
const CLOUD_INIT: &str = "#cloud-config\n";
/// Digits of a document's digest in a release.
const DIGITS: usize = 16;

/// A cloud-config as it is written in YAML: with `stages`, as Elemental and Kairos have them, or else in cloud-init's
/// dialect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CloudConfig(pub Map<String, Value>);

impl CloudConfig {
    /// The document that nodes get. The same content gives the same document.
    pub fn document(&self) -> String {
        let head = if self.0.contains_key("stages") { "" } else { CLOUD_INIT };
        format!("{head}{}\n", Value::Object(self.0.clone()))
    }
}

impl JsonSchema for CloudConfig {
    fn schema_name() -> Cow<'static, str> {
        "CloudConfig".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
    fn inline_schema() -> bool {
        true
    }
}

/// A cloud-config on its way to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(crates(kube_core = "kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct OrderedCloudConfig {
    /// The document.
    #[schemars(length(max = 16_384))]
    pub document: String,
    /// Its SHA-256, 64 hexadecimal digits in lower case.
    #[schemars(length(max = 64))]
    #[x_kube(validation = crate::form::matches("^[0-9a-f]{64}$", "sha256 must be 64 hexadecimal digits in lower case"))]
    pub sha256: String,
}

/// What a node runs, or is to run: the image's digest, and with a cloud-config from the cluster `+` and the beginning of
/// that one's SHA-256. Two releases of one image are as different as two images.
pub fn release(digest: &str, cloud_config_sha256: Option<&str>) -> String {
    match cloud_config_sha256 {
        None => digest.to_owned(),
        Some(sha256) => format!("{digest}+{}", sha256.get(..DIGITS).unwrap_or(sha256)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> String {
        serde_json::from_value::<CloudConfig>(value).unwrap().document()
    }

    #[test]
    fn the_dialect_is_told_by_the_stages() {
        assert_eq!(document(json!({ "stages": {} })), "{\"stages\":{}}\n");
        assert_eq!(document(json!({ "hostname": "n" })), "#cloud-config\n{\"hostname\":\"n\"}\n");
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let one: CloudConfig = serde_json::from_str(r#"{"b":1,"a":{"d":1,"c":2}}"#).unwrap();
        let other: CloudConfig = serde_json::from_str(r#"{"a":{"c":2,"d":1},"b":1}"#).unwrap();
        assert_eq!(one.document(), other.document());
    }

    #[test]
    fn a_release_is_the_digest_and_a_part_of_the_other() {
        assert_eq!(release("sha256:0f", None), "sha256:0f");
        let sha256 = "0123456789abcdef".repeat(4);
        assert_eq!(release("sha256:0f", Some(&sha256)), "sha256:0f+0123456789abcdef");
    }
}
