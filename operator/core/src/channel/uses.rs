//! Who uses a version: such a one is never deleted.

use std::collections::BTreeMap;

use evenkeel_crds::{
    ManagedOSImage, ManagedOSVersionSpec,
    node_plan::{NodePlanSpec, NodePlanStatus},
};

/// Versions that are used, each with somebody who does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// By the name of a `ManagedOSVersion`.
    names: BTreeMap<String, String>,
    /// By a reference, with a tag or with a digest.
    references: BTreeMap<String, String>,
    /// By a repository and the version of an image from it.
    versions: BTreeMap<(String, String), String>,
}

impl Uses {
    /// Takes note of what an image object asks for.
    pub fn by_image(&mut self, image: &ManagedOSImage) {
        let user = format!("ManagedOSImage {}", image.metadata.name.as_deref().unwrap_or_default());
        let status = image.status.as_ref();
        let position = status.and_then(|status| status.channel.as_ref());
        let followed = position.and_then(|position| position.version.as_ref());
        for name in [image.spec.managed_os_version_name.as_ref(), followed].into_iter().flatten() {
            self.names.insert(name.clone(), user.clone());
        }
        let resolved = status.and_then(|status| status.resolved_from.as_ref());
        let pinned = status.and_then(|status| status.image.as_ref());
        let let_in = position.and_then(|position| position.image.as_ref());
        for reference in
            [image.spec.os_image.as_ref(), image.spec.recovery_image.as_ref(), resolved, pinned, let_in]
                .into_iter()
                .flatten()
        {
            self.references.insert(reference.clone(), user.clone());
        }
    }

    /// Takes note of what a node is to run, and of what is in its slots: it may go back to any of them.
    pub fn by_node(&mut self, name: &str, spec: &NodePlanSpec, status: &NodePlanStatus) {
        let user = format!("node {name}");
        let recovery = spec.recovery.as_ref().map(|order| &order.image);
        for image in [spec.image.as_ref(), recovery].into_iter().flatten() {
            self.references.insert(image.clone(), user.clone());
        }
        let slots = status.slots.iter().map(|slot| (&slot.image, &slot.version));
        let recovery = status.recovery.iter();
        for (image, version) in slots.chain(recovery.map(|slot| (&slot.image, &slot.version))) {
            let Some(image) = image else { continue };
            self.references.insert(image.clone(), user.clone());
            if let Some(version) = version {
                self.versions.insert((repository(image).to_owned(), version.clone()), user.clone());
            }
        }
    }

    /// Somebody who uses a version.
    pub fn user(&self, name: &str, version: &ManagedOSVersionSpec) -> Option<&str> {
        let by_name = self.names.get(name);
        let image = version.metadata.upgrade_image.as_ref();
        let by_reference = || self.references.get(image?);
        let by_version = || {
            let repository = repository(image?).to_owned();
            // An image without a label has the version that its tag says.
            let texts = [Some(version.version.as_str()), tag(image?)];
            texts
                .into_iter()
                .flatten()
                .find_map(|text| self.versions.get(&(repository.clone(), text.to_owned())))
        };
        by_name.or_else(by_reference).or_else(by_version).map(String::as_str)
    }
}

/// A reference without its tag and its digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or_default();
    match tag(reference) {
        Some(tag) => &name[..name.len() - tag.len() - 1],
        None => name,
    }
}

fn tag(reference: &str) -> Option<&str> {
    let name = reference.split('@').next().unwrap_or_default();
    let (_, last) = name.rsplit_once('/')?;
    last.split_once(':').map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::{
        ManagedOSImageSpec, ManagedOSImageStatus, NodePlanSpec, following::ChannelPosition,
        managed_os_version::VersionMetadata,
    };

    fn version(version: &str, image: &str) -> ManagedOSVersionSpec {
        let metadata = VersionMetadata { upgrade_image: Some(image.into()), ..VersionMetadata::default() };
        ManagedOSVersionSpec { version: version.into(), metadata, ..ManagedOSVersionSpec::default() }
    }

    #[test]
    fn an_image_object_uses_what_it_names_follows_or_has_resolved() {
        let mut image = ManagedOSImage::new("os", ManagedOSImageSpec::default());
        image.spec.managed_os_version_name = Some("named".into());
        image.status = Some(ManagedOSImageStatus {
            resolved_from: Some("r.example/os:3".into()),
            channel: Some(ChannelPosition { version: Some("followed".into()), ..ChannelPosition::default() }),
            ..ManagedOSImageStatus::default()
        });
        let mut uses = Uses::default();
        uses.by_image(&image);
        for (name, place, used) in [
            ("named", "r.example/os:1", true),
            ("followed", "r.example/os:2", true),
            ("other", "r.example/os:3", true),
            ("other", "r.example/os:4", false),
        ] {
            let found = uses.user(name, &version("x", place));
            assert_eq!(found, used.then_some("ManagedOSImage os"), "{name} {place}");
        }
    }

    #[test]
    fn a_node_uses_what_it_is_to_run_and_what_its_slots_hold() {
        let digest = format!("r.example:5000/os@sha256:{}", "a".repeat(64));
        let status = serde_json::json!({ "slots": [
            { "name": "a", "image": digest, "version": "v1", "state": "Complete" },
            { "name": "b", "state": "Empty" },
        ] });
        let mut uses = Uses::default();
        uses.by_node("n1", &NodePlanSpec::default(), &serde_json::from_value(status).unwrap());
        for (text, place, used) in [
            ("whatever", digest.as_str(), true),
            ("v1", "r.example:5000/os:anything", true),
            ("whatever", "r.example:5000/os:v1", true),
            ("v1", "r.example/os:v1", false),
            ("v2", "r.example:5000/os:v2", false),
        ] {
            assert_eq!(uses.user("x", &version(text, place)).is_some(), used, "{text} {place}");
        }
    }
}
