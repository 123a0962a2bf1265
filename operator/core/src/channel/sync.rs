//! What has to be done so that the `ManagedOSVersion` objects are what a channel lists.

use evenkeel_crds::ManagedOSVersionSpec;

use super::{Listing, uses::Uses};

/// A `ManagedOSVersion` that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// The channel that keeps it; absent where a person does.
    pub channel: Option<String>,
    /// Whether it is marked as no longer listed.
    pub retired: bool,
    /// What it says; absent where this version of the operator cannot read it.
    pub spec: Option<ManagedOSVersionSpec>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Make it.
    Create(String, ManagedOSVersionSpec),
    /// Let it say this, and be listed.
    Update(String, ManagedOSVersionSpec),
    /// Mark it as no longer listed.
    Retire(String),
    /// Delete it.
    Delete(String),
}

/// What has to be done, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Outcome {
    /// What has to be done.
    pub changes: Vec<Change>,
    /// Names that the channel lists, and that somebody else has: a person, or another channel.
    pub taken: Vec<String>,
    /// Versions that would be deleted if nobody used them, each with somebody who does.
    pub held: Vec<(String, String)>,
    /// How many versions there will be that are no longer listed.
    pub retired: usize,
}

/// Compares what `channel` lists with what is there. With `delete` versions that are no longer listed are deleted, but
/// those that are used.
pub fn compare(
    channel: &str,
    listing: &Listing,
    existing: &[Existing],
    uses: &Uses,
    delete: bool,
) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, wanted) in &listing.versions {
        match existing.iter().find(|one| one.name == *name) {
            None => outcome.changes.push(Change::Create(name.clone(), wanted.clone())),
            Some(one) if one.channel.as_deref() != Some(channel) => outcome.taken.push(name.clone()),
            Some(one) if one.spec.as_ref() == Some(wanted) && !one.retired => {}
            Some(_) => outcome.changes.push(Change::Update(name.clone(), wanted.clone())),
        }
    }
    let ours = existing.iter().filter(|one| one.channel.as_deref() == Some(channel));
    for one in ours.filter(|one| !listing.versions.contains_key(&one.name)) {
        // What could not be read may have been meant to list it.
        if !listing.unusable.is_empty() {
            outcome.retired += usize::from(one.retired);
            continue;
        }
        let held_by = one.spec.as_ref().and_then(|spec| uses.user(&one.name, spec));
        if delete && let Some(user) = held_by {
            outcome.held.push((one.name.clone(), user.to_owned()));
        }
        // Nobody can tell whether one that cannot be read is used.
        if delete && held_by.is_none() && one.spec.is_some() {
            outcome.changes.push(Change::Delete(one.name.clone()));
            continue;
        }
        outcome.retired += 1;
        if !one.retired {
            outcome.changes.push(Change::Retire(one.name.clone()));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::{ManagedOSImage, ManagedOSImageSpec, managed_os_version::VersionMetadata};

    fn version(tag: &str) -> ManagedOSVersionSpec {
        let metadata =
            VersionMetadata { upgrade_image: Some(format!("r.example/os:{tag}")), ..Default::default() };
        ManagedOSVersionSpec { version: tag.into(), metadata, ..Default::default() }
    }

    fn there(name: &str, channel: Option<&str>, retired: bool) -> Existing {
        let channel = channel.map(str::to_owned);
        Existing { name: name.into(), channel, retired, spec: Some(version(name)) }
    }

    fn listing(names: &[&str]) -> Listing {
        let versions = names.iter().map(|name| ((*name).to_owned(), version(name))).collect();
        Listing { versions, unusable: Vec::new() }
    }

    fn using(name: &str) -> Uses {
        let mut image = ManagedOSImage::new("os", ManagedOSImageSpec::default());
        image.spec.managed_os_version_name = Some(name.into());
        let mut uses = Uses::default();
        uses.by_image(&image);
        uses
    }

    #[test]
    fn what_is_listed_is_made_changed_or_left_alone() {
        let mut changed = there("v2", Some("c"), false);
        changed.spec = Some(version("old"));
        let existing = [
            there("v1", Some("c"), false),
            changed,
            there("v3", Some("c"), true),
            there("by-hand", None, false),
            there("others", Some("d"), false),
        ];
        let listed = listing(&["v1", "v2", "v3", "v4", "by-hand", "others"]);
        let outcome = compare("c", &listed, &existing, &Uses::default(), true);
        let expected = [
            Change::Update("v2".into(), version("v2")),
            Change::Update("v3".into(), version("v3")),
            Change::Create("v4".into(), version("v4")),
        ];
        assert_eq!(outcome.changes, expected);
        assert_eq!((outcome.taken, outcome.retired), (vec!["by-hand".to_owned(), "others".to_owned()], 0));
    }

    #[test]
    fn what_is_no_longer_listed_is_marked_or_deleted_but_never_what_is_used_or_of_others() {
        let mut unreadable = there("odd", Some("c"), false);
        unreadable.spec = None;
        let existing = [
            there("used", Some("c"), false),
            there("unused", Some("c"), false),
            there("marked", Some("c"), true),
            unreadable,
            there("by-hand", None, false),
            there("others", Some("d"), true),
        ];
        let retire = |name: &str| Change::Retire(name.into());
        let delete = |name: &str| Change::Delete(name.into());
        let kept = compare("c", &listing(&["new"]), &existing, &using("used"), false);
        assert_eq!(kept.changes[1..], [retire("used"), retire("unused"), retire("odd")]);
        assert_eq!((kept.retired, kept.held.len()), (4, 0));
        let deleted = compare("c", &listing(&["new"]), &existing, &using("used"), true);
        assert_eq!(deleted.changes[1..], [retire("used"), delete("unused"), delete("marked"), retire("odd")]);
        assert_eq!(deleted.held, [("used".to_owned(), "ManagedOSImage os".to_owned())]);
        assert_eq!(deleted.retired, 2);
    }

    #[test]
    fn while_entries_cannot_be_used_nothing_is_retired() {
        let damaged = Listing { unusable: vec!["entry 2: what?".into()], ..listing(&["v2"]) };
        let existing = [there("v1", Some("c"), false), there("v0", Some("c"), true)];
        let outcome = compare("c", &damaged, &existing, &Uses::default(), true);
        assert_eq!(outcome.changes, [Change::Create("v2".into(), version("v2"))]);
        assert_eq!(outcome.retired, 1);
    }
}
