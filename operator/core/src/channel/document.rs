//! The list of versions as a JSON document. Its form is that of Elemental's channels: an array of objects of kind
//! `ManagedOSVersion`, of which `metadata.name` and `spec` count and what is not known is passed over.

use evenkeel_crds::{
    ManagedOSVersionSpec,
    managed_os_version::{VersionMetadata, VersionType},
};
use serde::Deserialize;
use serde_json::Value;

use super::{Listing, VERSIONS_MAX};

/// Bytes that a document may have: 4 kB for each of so many versions as there may be.
pub const BYTES_MAX: usize = VERSIONS_MAX * 4096;
/// Limits of the API types, in characters.
const VERSION_MAX: usize = 128;
const IMAGE_MAX: usize = 512;
const URI_MAX: usize = 2048;
const DISPLAY_MAX: usize = 256;

/// Why a document is no list of versions.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not an array.
    #[error("the list of versions is not a JSON array ({0}): is this the address of a channel?")]
    NotAnArray(#[source] serde_json::Error),
    /// Nothing in it.
    #[error(
        "the list of versions is empty, and nothing is retired because of that: publish at least one version"
    )]
    Empty,
    /// Too much in it.
    #[error("the list has {0} versions, and {VERSIONS_MAX} are the limit: leave old ones out")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Entry {
    metadata: Meta,
    spec: Spec,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    version: String,
    #[serde(default)]
    r#type: String,
    min_version: Option<String>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    upgrade_image: Option<String>,
    uri: Option<String>,
    display_name: Option<String>,
    created: Option<Value>,
}

/// Reads a document of at most [`BYTES_MAX`] bytes.
pub fn parse(bytes: &[u8]) -> Result<Listing, DocumentError> {
    let entries: Vec<Value> = serde_json::from_slice(bytes).map_err(DocumentError::NotAnArray)?;
    match entries.len() {
        0 => return Err(DocumentError::Empty),
        count if count > VERSIONS_MAX => return Err(DocumentError::TooMany(count)),
        _ => {}
    }
    let mut listing = Listing::default();
    for (number, entry) in entries.into_iter().enumerate() {
        let name = entry["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let called = if name.is_empty() { format!("entry {}", number + 1) } else { shown(&name) };
        match version(entry) {
            Err(why) => listing.unusable.push(format!("{called}: {why}")),
            Ok(_) if listing.versions.contains_key(&name) => {
                listing.unusable.push(format!("{called}: it is listed twice"));
            }
            Ok(version) => {
                listing.versions.insert(name, version);
            }
        }
    }
    Ok(listing)
}

fn version(entry: Value) -> Result<ManagedOSVersionSpec, String> {
    let Entry { metadata: Meta { name }, spec } =
        serde_json::from_value(entry).map_err(|error| shown(&error.to_string()))?;
    if !is_object_name(&name) {
        return Err(
            "metadata.name is not a name: lower-case letters, digits, `-` and `.`, 253 at most".into()
        );
    }
    let Spec { version, r#type, min_version, metadata } = spec;
    let Metadata { upgrade_image, uri, display_name, created } = metadata;
    let r#type = match r#type.to_ascii_lowercase().as_str() {
        "" | "container" => VersionType::Container,
        "iso" => VersionType::Iso,
        other => return Err(format!("spec.type {} is neither container nor iso", shown(other))),
    };
    let given = |field: &str, value: Option<String>, limit: usize| match value.filter(|text| !text.is_empty())
    {
        Some(text) if text.chars().count() > limit => {
            Err(format!("{field} is longer than {limit} characters"))
        }
        value => Ok(value),
    };
    let metadata = VersionMetadata {
        upgrade_image: given("metadata.upgradeImage", upgrade_image, IMAGE_MAX)?,
        uri: given("metadata.uri", uri, URI_MAX)?,
        display_name: given("metadata.displayName", display_name, DISPLAY_MAX)?,
        created: created.as_ref().and_then(seconds),
    };
    match (r#type, &metadata) {
        (VersionType::Container, VersionMetadata { upgrade_image: None, .. }) => {
            return Err("a container has no metadata.upgradeImage".into());
        }
        (VersionType::Iso, VersionMetadata { uri: None, .. }) => {
            return Err("an iso has no metadata.uri".into());
        }
        _ => {}
    }
    let version = given("spec.version", Some(version), VERSION_MAX)?.ok_or("spec.version is empty")?;
    let min_version = given("spec.minVersion", min_version, VERSION_MAX)?;
    Ok(ManagedOSVersionSpec { version, r#type, min_version, metadata })
}

/// Seconds since 1970, as a number, as digits, or as RFC 3339 has them; nothing if it is none of these.
fn seconds(value: &Value) -> Option<i64> {
    let text = || value.as_str();
    let found = value
        .as_i64()
        .or_else(|| text()?.parse().ok())
        .or_else(|| text()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second));
    found.filter(|seconds| *seconds >= 0)
}

/// RFC 1123, as Kubernetes has it for the names of objects.
pub(super) fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let inside =
            label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The beginning of what somebody wrote, on one line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of Elemental's documentation, with what only its own operator understands.
    const ELEMENTAL: &str = r#"[
        {
            "apiVersion": "elemental.cattle.io/v1beta1", "kind": "ManagedOSVersion",
            "metadata": { "name": "sl-micro-6.1-baremetal-v2.2.0-container", "creationTimestamp": null },
            "spec": {
                "version": "v2.2.0-4.4", "type": "container", "minVersion": "v2.1.0",
                "metadata": {
                    "upgradeImage": "registry.suse.com/suse/sl-micro/6.1/baremetal-os-container:2.2.0-4.4",
                    "displayName": "SL Micro 6.1 Baremetal OS", "created": 1744096800, "buildId": { "any": ["thing"] }
                },
                "upgradeContainer": { "envs": [{ "name": "FORCE", "value": "true" }] }
            }
        },
        {
            "metadata": { "name": "sl-micro-6.1-baremetal-v2.2.0-iso" },
            "spec": {
                "version": "v2.2.0-4.4", "type": "ISO",
                "metadata": {
                    "uri": "registry.suse.com/suse/sl-micro/6.1/baremetal-iso-image:2.2.0-4.4",
                    "displayName": "SL Micro 6.1 Baremetal ISO", "created": "2025-04-08T07:20:00Z"
                }
            }
        }
    ]"#;

    #[test]
    fn elementals_channel_is_read_as_it_is() {
        let listing = parse(ELEMENTAL.as_bytes()).unwrap();
        assert!(listing.unusable.is_empty(), "{:?}", listing.unusable);
        let container = &listing.versions["sl-micro-6.1-baremetal-v2.2.0-container"];
        assert_eq!(
            (container.version.as_str(), container.min_version.as_deref()),
            ("v2.2.0-4.4", Some("v2.1.0"))
        );
        assert_eq!(container.metadata.created, Some(1_744_096_800));
        let image = container.metadata.upgrade_image.as_deref().unwrap();
        assert!(image.ends_with("baremetal-os-container:2.2.0-4.4"));
        let iso = &listing.versions["sl-micro-6.1-baremetal-v2.2.0-iso"];
        assert_eq!((iso.r#type, iso.metadata.created), (VersionType::Iso, Some(1_744_096_800)));
        let behind = listing.behind(Some("mirror.example:5000/suse/"));
        for version in behind.versions.into_values() {
            let place = version.metadata.upgrade_image.or(version.metadata.uri).unwrap();
            assert!(place.starts_with("mirror.example:5000/suse/registry.suse.com/suse/"), "{place}");
        }
    }

    #[test]
    fn an_entry_that_is_no_version_is_named_and_the_others_are_taken() {
        let good = r#"{"metadata":{"name":"v1"},"spec":{"version":"1","metadata":{"upgradeImage":"os:1"}}}"#;
        for (bad, words) in [
            (
                r#"{"metadata":{"name":"V 2"},"spec":{"version":"2","metadata":{"upgradeImage":"os:2"}}}"#,
                "V 2: metadata.name",
            ),
            (r#"{"metadata":{},"spec":{"version":"2"}}"#, "entry 2: missing field `name`"),
            (r#"{"metadata":{"name":"v2"}}"#, "v2: missing field `spec`"),
            (r#"{"metadata":{"name":"v2"},"spec":{"version":"2"}}"#, "no metadata.upgradeImage"),
            (r#"{"metadata":{"name":"v2"},"spec":{"version":"2","type":"iso"}}"#, "no metadata.uri"),
            (r#"{"metadata":{"name":"v2"},"spec":{"version":"2","type":"tape"}}"#, "tape is neither"),
            (
                r#"{"metadata":{"name":"v2"},"spec":{"version":"","metadata":{"upgradeImage":"o"}}}"#,
                "version is empty",
            ),
            (good, "v1: it is listed twice"),
            ("7", "entry 2: "),
        ] {
            let listing = parse(format!("[{good},{bad}]").as_bytes()).unwrap();
            assert_eq!(listing.versions.keys().collect::<Vec<_>>(), ["v1"], "{bad}");
            assert!(
                listing.unusable.len() == 1 && listing.unusable[0].contains(words),
                "{:?}",
                listing.unusable
            );
        }
    }

    #[test]
    fn what_is_no_list() {
        let many = format!("[{}]", vec!["1"; VERSIONS_MAX + 1].join(","));
        let deep = "[".repeat(100_000);
        for (text, word) in [
            ("", "JSON array"),
            ("{}", "JSON array"),
            ("[]", "empty"),
            (&many, "1001"),
            (&deep, "JSON array"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest::proptest! {
        /// Whatever somebody does to a document: it is read or refused, and what is read keeps to the limits.
        #[test]
        fn damaged_documents_give_versions_within_the_limits_or_none(
            changes in proptest::collection::vec((0..ELEMENTAL.len(), proptest::prelude::any::<u8>()), 0..8),
            cut in 0..ELEMENTAL.len(),
        ) {
            let mut bytes = ELEMENTAL.as_bytes().to_vec();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            for text in [&bytes[..], &bytes[..cut]] {
                let Ok(listing) = parse(text) else { continue };
                for (name, version) in listing.versions {
                    assert!(is_object_name(&name));
                    assert!((1..=VERSION_MAX).contains(&version.version.chars().count()));
                    let place = version.metadata.upgrade_image.or(version.metadata.uri).unwrap();
                    assert!((1..=URI_MAX).contains(&place.chars().count()));
                }
            }
        }
    }
}
