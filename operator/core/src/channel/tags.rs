//! The list of versions as the tags of a repository.

use std::cmp::Reverse;

use evenkeel_crds::{ManagedOSVersionSpec, managed_os_version::VersionMetadata};

use super::{
    Listing,
    document::is_object_name,
    order::{self, NotAConstraint},
};

/// Versions that a repository gives, the newest ones: what is older stays in the registry.
pub const TAGS_MAX: usize = 100;

/// Makes a version of each tag that is a semantic version and satisfies `constraint`. It is called `CHANNEL-TAG`.
pub fn list(
    channel: &str,
    repository: &str,
    constraint: Option<&str>,
    tags: &[String],
) -> Result<Listing, NotAConstraint> {
    let constraint = order::constraint(constraint)?;
    let mut found: Vec<_> = tags
        .iter()
        .filter_map(|tag| Some((order::parse(tag)?, tag)))
        .filter(|(version, _)| constraint.matches(version))
        .collect();
    found.sort_by_key(|(version, tag)| (Reverse(version.clone()), (*tag).clone()));
    let mut listing = Listing::default();
    for (_, tag) in found.into_iter().take(TAGS_MAX) {
        let name = format!("{channel}-{}", tag.to_ascii_lowercase().replace('_', "-"));
        if !is_object_name(&name) || listing.versions.contains_key(&name) {
            listing.unusable.push(format!("tag {tag}: {name} is no name for it, or that of another tag"));
            continue;
        }
        let metadata = VersionMetadata {
            upgrade_image: Some(format!("{repository}:{tag}")),
            ..VersionMetadata::default()
        };
        let version =
            ManagedOSVersionSpec { version: tag.clone(), metadata, ..ManagedOSVersionSpec::default() };
        listing.versions.insert(name, version);
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(constraint: Option<&str>, tags: &[&str]) -> Vec<String> {
        let tags: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
        list("os", "r.example/os", constraint, &tags).unwrap().versions.into_keys().collect()
    }

    #[test]
    fn tags_that_are_versions_and_satisfy_the_constraint_are_versions() {
        let tags = ["latest", "v1.0", "v1.1", "v2.0", "v2.1-RC1", "sha256-0123.sig", "main"];
        assert_eq!(names(None, &tags), ["os-v1.0", "os-v1.1", "os-v2.0"]);
        assert_eq!(names(Some("<2"), &tags), ["os-v1.0", "os-v1.1"]);
        assert_eq!(names(Some(">=2.1.0-0"), &tags), ["os-v2.1-rc1"]);
        assert!(names(Some(">=9"), &tags).is_empty());
        let listing = list("os", "r.example/os", None, &["v1.0".to_owned()]).unwrap();
        let version = &listing.versions["os-v1.0"];
        assert_eq!(version.metadata.upgrade_image.as_deref(), Some("r.example/os:v1.0"));
        assert_eq!(version.version, "v1.0");
    }

    #[test]
    fn the_newest_are_kept_and_names_do_not_clash() {
        let tags: Vec<String> = (0..150).map(|number| format!("1.{number}")).collect();
        let listing = list("os", "r", None, &tags).unwrap();
        assert_eq!(listing.versions.len(), TAGS_MAX);
        assert!(listing.versions.contains_key("os-1.149") && !listing.versions.contains_key("os-1.49"));
        let twins = ["1.0-A".to_owned(), "1.0-a".to_owned()];
        let listing = list("os", "r", Some(">=1.0.0-A"), &twins).unwrap();
        assert_eq!((listing.versions.len(), listing.unusable.len()), (1, 1));
    }
}
