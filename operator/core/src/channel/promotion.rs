//! Which version of its channel an image object takes.

use evenkeel_crds::{
    ManagedOSVersionSpec,
    condition::Time,
    following::{ChannelPosition, FollowedChannel, Promotion},
    managed_os_version::VersionType,
};
use jiff::Timestamp;
use semver::Version;

use super::order::{self, NotAConstraint};

/// A version of the channel.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Name of its `ManagedOSVersion`.
    pub name: &'a str,
    /// What it says.
    pub spec: &'a ManagedOSVersionSpec,
    /// Whether the channel lists it no more.
    pub retired: bool,
}

/// What a person has approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// Name of the `ManagedOSVersion`.
    pub version: String,
    /// Who approved.
    pub by: Option<String>,
}

/// Decides where an image object is in its channel. A version that it has is given up for a newer one, for one that was
/// approved, or because the constraint does not hold for it any more; never because the channel lists it no more: nodes do
/// not go back by themselves. What was approved is an image: where the channel has another one under the same name, only
/// one that promotes automatically goes on to that.
pub fn decide(
    follow: &FollowedChannel,
    before: Option<&ChannelPosition>,
    candidates: &[Candidate<'_>],
    approval: Option<&Approval>,
    now: Timestamp,
) -> Result<ChannelPosition, NotAConstraint> {
    let mut position = choose(follow, before, candidates, approval, now)?;
    let of_the_image = |one: &&Candidate<'_>| {
        position.version.as_deref() == Some(one.name) && position.image == one.spec.metadata.upgrade_image
    };
    // Once the version's object is gone, nobody else knows from where nodes may come.
    if let Some(one) = candidates.iter().find(of_the_image) {
        position.min_version.clone_from(&one.spec.min_version);
    }
    Ok(position)
}

fn choose(
    follow: &FollowedChannel,
    before: Option<&ChannelPosition>,
    candidates: &[Candidate<'_>],
    approval: Option<&Approval>,
    now: Timestamp,
) -> Result<ChannelPosition, NotAConstraint> {
    let constraint = order::constraint(follow.constraint.as_deref())?;
    let satisfying =
        |one: &Candidate<'_>| order::parse(&one.spec.version).filter(|version| constraint.matches(version));
    let mut fit: Vec<(Version, &Candidate<'_>)> = candidates
        .iter()
        .filter(|one| !one.retired && one.spec.r#type == VersionType::Container)
        .filter_map(|one| Some((satisfying(one)?, one)))
        .collect();
    fit.sort_by(|(a, one), (b, other)| (a, one.name).cmp(&(b, other.name)));
    let newest = fit.last();

    let start = ChannelPosition { name: follow.name.clone(), ..ChannelPosition::default() };
    let here = before.filter(|before| before.name == follow.name).cloned().unwrap_or(start);
    let current = here.version.as_deref().and_then(|name| candidates.iter().find(|one| one.name == name));
    let newer = newest.filter(|(version, one)| match (here.version.as_deref(), current) {
        (None, _) => true,
        (Some(name), _) if name == one.name => false,
        // The object was deleted by a person: what it was nobody knows.
        (Some(_), None) => false,
        (Some(_), Some(current)) => satisfying(current).is_none_or(|running| running < *version),
    });
    let take = |one: &Candidate<'_>, by: Option<String>| ChannelPosition {
        version: Some(one.name.to_owned()),
        image: one.spec.metadata.upgrade_image.clone(),
        min_version: None,
        available: None,
        approved_by: by,
        since: Some(Time(now)),
        ..here.clone()
    };
    if follow.promotion == Promotion::Automatic {
        return Ok(match newer {
            Some((_, one)) => take(one, None),
            None => match fit.iter().find(|(_, one)| here.version.as_deref() == Some(one.name)) {
                Some((_, one)) if one.spec.metadata.upgrade_image != here.image => take(one, None),
                _ => ChannelPosition { available: None, ..here },
            },
        });
    }
    let approved = approval.and_then(|approval| {
        let (_, one) = fit.iter().find(|(_, one)| one.name == approval.version)?;
        Some((approval, one)).filter(|(_, one)| here.version.as_deref() != Some(one.name))
    });
    let mut position = match approved {
        Some((approval, one)) => take(one, approval.by.clone()),
        None => here.clone(),
    };
    position.available =
        newer.map(|(_, one)| one.name.to_owned()).filter(|name| position.version.as_ref() != Some(name));
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_crds::managed_os_version::VersionMetadata;

    fn versions(all: &[(&str, bool)]) -> Vec<(String, ManagedOSVersionSpec, bool)> {
        let spec = |version: &str| ManagedOSVersionSpec { version: version.into(), ..Default::default() };
        all.iter().map(|(version, retired)| (format!("os-{version}"), spec(version), *retired)).collect()
    }

    fn decided(
        promotion: Promotion,
        constraint: Option<&str>,
        at: Option<&str>,
        all: &[(&str, bool)],
        approved: Option<&str>,
    ) -> (Option<String>, Option<String>, Option<String>) {
        let follow =
            FollowedChannel { name: "os".into(), constraint: constraint.map(str::to_owned), promotion };
        let before = at.map(|version| ChannelPosition {
            name: "os".into(),
            version: Some(format!("os-{version}")),
            ..ChannelPosition::default()
        });
        let versions = versions(all);
        let candidates: Vec<_> = versions
            .iter()
            .map(|(name, spec, retired)| Candidate { name, spec, retired: *retired })
            .collect();
        let approval = approved.map(|version| Approval { version: version.into(), by: Some("me".into()) });
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let position = decide(&follow, before.as_ref(), &candidates, approval.as_ref(), now).unwrap();
        assert_eq!(
            position.since.is_some(),
            position.version.as_deref() != at.map(|at| format!("os-{at}")).as_deref()
        );
        (position.version, position.available, position.approved_by)
    }

    #[allow(clippy::unnecessary_wraps)]
    fn name(version: &str) -> Option<String> {
        Some(format!("os-{version}"))
    }

    #[test]
    fn the_newest_that_fits_is_taken_automatically_and_nobody_goes_back_by_itself() {
        let all = [("1.9", false), ("1.10", false), ("2.0", false), ("2.1-rc1", false), ("nightly", false)];
        let auto =
            |constraint, at, all: &[(&str, bool)]| decided(Promotion::Automatic, constraint, at, all, None).0;
        assert_eq!(auto(None, None, &all), name("2.0"));
        assert_eq!(auto(Some("<2"), None, &all), name("1.10"));
        assert_eq!(auto(None, Some("1.9"), &all), name("2.0"));
        assert_eq!(auto(Some("<2"), Some("2.0"), &all), name("1.10"), "somebody changed the constraint");
        assert_eq!(auto(None, Some("2.0"), &[("1.10", false), ("2.0", true)]), name("2.0"), "withdrawn");
        assert_eq!(auto(None, Some("2.0"), &[("1.10", false)]), name("2.0"), "deleted");
        assert_eq!(auto(Some(">=3"), None, &all), None);
        assert_eq!(auto(None, None, &[("3.0", true)]), None, "no longer listed");
    }

    #[test]
    fn what_has_to_be_approved_waits_and_who_did_is_kept() {
        let all = [("1.0", false), ("1.1", false), ("2.0", false)];
        let asked = |constraint, at, approved| decided(Promotion::Approved, constraint, at, &all, approved);
        assert_eq!(asked(None, None, None), (None, name("2.0"), None));
        assert_eq!(asked(None, Some("1.0"), None), (name("1.0"), name("2.0"), None));
        assert_eq!(asked(None, Some("1.0"), Some("os-2.0")), (name("2.0"), None, Some("me".into())));
        assert_eq!(asked(None, Some("1.0"), Some("os-1.1")), (name("1.1"), name("2.0"), Some("me".into())));
        assert_eq!(
            asked(None, Some("2.0"), Some("os-1.1")),
            (name("1.1"), None, Some("me".into())),
            "a way back"
        );
        assert_eq!(asked(Some("<2"), Some("1.0"), Some("os-2.0")), (name("1.0"), name("1.1"), None));
        assert_eq!(asked(None, Some("2.0"), Some("os-2.0")), (name("2.0"), None, None), "approved long ago");
    }

    #[test]
    fn another_image_under_the_same_name_is_taken_only_automatically() {
        let version = |image: &str| {
            let metadata =
                VersionMetadata { upgrade_image: Some(image.into()), ..VersionMetadata::default() };
            ManagedOSVersionSpec { version: "1.0".into(), metadata, ..ManagedOSVersionSpec::default() }
        };
        let decided = |promotion, spec: &ManagedOSVersionSpec, before: Option<&ChannelPosition>| {
            let follow = FollowedChannel { name: "os".into(), constraint: None, promotion };
            let approval = Approval { version: "v1".into(), by: None };
            let candidates = [Candidate { name: "v1", spec, retired: false }];
            decide(&follow, before, &candidates, Some(&approval), Timestamp::UNIX_EPOCH).unwrap()
        };
        let (first, second) = (version("os:first"), version("os:second"));
        for (promotion, expected) in [(Promotion::Approved, "os:first"), (Promotion::Automatic, "os:second")]
        {
            let before = decided(promotion, &first, None);
            assert_eq!((before.version.as_deref(), before.image.as_deref()), (Some("v1"), Some("os:first")));
            let after = decided(promotion, &second, Some(&before));
            assert_eq!((after.version.as_deref(), after.image.as_deref()), (Some("v1"), Some(expected)));
            assert_eq!(decided(promotion, &second, Some(&after)), after, "and that is that");
        }
    }

    #[test]
    fn from_where_nodes_may_come_is_kept_when_the_version_is_deleted() {
        let version = |version: &str, image: &str, minimum: Option<&str>| {
            let metadata =
                VersionMetadata { upgrade_image: Some(image.into()), ..VersionMetadata::default() };
            let min_version = minimum.map(str::to_owned);
            ManagedOSVersionSpec { version: version.into(), min_version, metadata, ..Default::default() }
        };
        let follow = FollowedChannel { name: "os".into(), promotion: Promotion::Automatic, constraint: None };
        let decided = |before: Option<&ChannelPosition>, all: &[(&str, &ManagedOSVersionSpec)]| {
            let all: Vec<_> =
                all.iter().map(|(name, spec)| Candidate { name, spec, retired: false }).collect();
            decide(&follow, before, &all, None, Timestamp::UNIX_EPOCH).unwrap()
        };
        let minimum = |position: &ChannelPosition| position.min_version.clone();
        let first = version("1.1", "os:1", Some("1.0"));
        let here = decided(None, &[("v1", &first)]);
        assert_eq!(minimum(&here).as_deref(), Some("1.0"));
        let raised = decided(Some(&here), &[("v1", &version("1.1", "os:1", Some("1.1")))]);
        assert_eq!(minimum(&raised).as_deref(), Some("1.1"), "the channel has thought better of it");
        assert_eq!(decided(Some(&raised), &[]), raised, "deleted");
        let unknown = ChannelPosition { min_version: None, ..here };
        assert_eq!(minimum(&decided(Some(&unknown), &[("v1", &first)])).as_deref(), Some("1.0"));
        let second = decided(Some(&raised), &[("v1", &first), ("v2", &version("1.2", "os:2", None))]);
        assert_eq!((second.version.as_deref(), minimum(&second)), (Some("v2"), None));
    }

    #[test]
    fn another_channel_is_a_new_beginning() {
        let follow = FollowedChannel { name: "b".into(), ..FollowedChannel::default() };
        let before =
            ChannelPosition { name: "a".into(), version: Some("v9".into()), ..ChannelPosition::default() };
        let position = decide(&follow, Some(&before), &[], None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(position, ChannelPosition { name: "b".into(), ..ChannelPosition::default() });
        let wrong = FollowedChannel { constraint: Some("newest".into()), ..follow };
        assert!(decide(&wrong, None, &[], None, Timestamp::UNIX_EPOCH).is_err());
    }
}
