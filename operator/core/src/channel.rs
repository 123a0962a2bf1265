//! Channels: what a list of versions means for the `ManagedOSVersion` objects that are there, and for the image objects
//! that follow it.

pub mod document;
pub mod order;
pub mod promotion;
pub mod sync;
pub mod tags;
pub mod uses;

use std::collections::BTreeMap;

use evenkeel_crds::ManagedOSVersionSpec;

/// Versions that a channel may list: more than any person looks through.
pub const VERSIONS_MAX: usize = 1000;

/// What a channel lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// By the name of their `ManagedOSVersion`.
    pub versions: BTreeMap<String, ManagedOSVersionSpec>,
    /// Entries that make no version, each with what is wrong with it. While there are some, no version is retired: the
    /// list may have meant it.
    pub unusable: Vec<String>,
}

impl Listing {
    /// The same with `registry` before each image, as Elemental has it; an ISO that has a whole address stays there.
    #[must_use]
    pub fn behind(mut self, registry: Option<&str>) -> Self {
        let Some(registry) = registry.map(|registry| registry.trim_end_matches('/')) else { return self };
        for version in self.versions.values_mut() {
            let places = [&mut version.metadata.upgrade_image, &mut version.metadata.uri];
            for place in places.into_iter().flatten().filter(|place| !place.contains("://")) {
                *place = format!("{registry}/{place}");
            }
        }
        self
    }
}
