//! A cloud-config that the cluster gives to nodes, and what it makes of an image: a release.

use std::borrow::Cow;

use kube_derive::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of a document: it is kept in a slot record of 64 KiB, where quotation marks and line ends take two bytes each, beside
/// what the image says of itself; 127 layers take 32 KiB there, and real images have less.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 10;
/// The first line: without it, only what is in `stages` would count.
const HEADER: &str = "#cloud-config\n";
/// A key whose number is a mode of files.
const PERMISSIONS: &str = "permissions";
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
        let mut content = Value::Object(self.0.clone());
        write_modes(&mut content);
        format!("{HEADER}{content}\n")
    }
}

/// Writes modes of files as text. YAML's `0640` is a number in octal digits for kubectl and Helm, and reaches us as 416: as text
/// that would be another mode.
fn write_modes(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(write_modes),
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_u64().filter(|_| key == PERMISSIONS) {
                    Some(mode) => *value = Value::String(format!("{mode:04o}")),
                    None => write_modes(value),
                }
            }
        }
        _ => {}
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

/// The digest in a reference that has one.
pub fn digest_of(image: &str) -> Option<&str> {
    image.rsplit_once('@').map(|(_, digest)| digest)
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
    fn a_mode_is_the_one_that_was_meant_quoted_or_not() {
        let with = |permissions: Value| {
            document(json!({ "stages": { "boot": [{ "files": [{ "permissions": permissions }] }] } }))
        };
        // 416 is 0640, 384 is 0600.
        for (number, text) in [(416, "0640"), (384, "0600"), (0o4755, "4755"), (0o4, "0004")] {
            assert_eq!(with(json!(number)), with(json!(text)));
        }
        assert_eq!(
            document(json!({ "permissions": { "a": 416 } })),
            "#cloud-config\n{\"permissions\":{\"a\":416}}\n"
        );
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
