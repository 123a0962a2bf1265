//! Which of two versions is newer: semantic versions, as operating systems write them. A `v` before them, fewer than three
//! numbers and zeros before a number (`v24.04`) are understood as well.

use std::fmt;

use semver::{BuildMetadata, Prerelease, Version, VersionReq};

/// A constraint that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a constraint on versions ({why}): write one as `>=1.2, <2`, `^1.4` or `~1.4.2`")]
pub struct NotAConstraint {
    text: String,
    why: String,
}

/// A version, if the text is one.
pub fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let (text, build) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    let numbers: Vec<u64> = numbers
        .split('.')
        // `parse` alone would take a sign.
        .map(|number| number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?)
        .collect::<Option<_>>()?;
    let (major, minor, patch) = match numbers.as_slice() {
        [major] => (*major, 0, 0),
        [major, minor] => (*major, *minor, 0),
        [major, minor, patch] => (*major, *minor, *patch),
        _ => return None,
    };
    let (pre, build) = (Prerelease::new(pre).ok()?, BuildMetadata::new(build).ok()?);
    Some(Version { major, minor, patch, pre, build })
}

/// A constraint; without one, all versions but pre-releases.
pub fn constraint(text: Option<&str>) -> Result<VersionReq, NotAConstraint> {
    let Some(text) = text else { return Ok(VersionReq::STAR) };
    text.parse().map_err(|why: semver::Error| NotAConstraint { text: text.to_owned(), why: why.to_string() })
}

/// A node that runs too old a version to go to another one: a stop on the way is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BelowMinimum {
    /// What the node runs; absent where nobody knows, or where it is no semantic version.
    pub running: Option<String>,
    /// What it must run at least.
    pub minimum: String,
}

impl fmt::Display for BelowMinimum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { running, minimum } = self;
        let known = match running {
            Some(running) => format!("it runs {running}"),
            None => "it is not known what it runs".to_owned(),
        };
        write!(
            f,
            "{known}, and the version can be reached from {minimum} on: upgrade it to a version between first"
        )
    }
}

/// Whether a node that runs `running` may go to a version that asks for `minimum`. A `minimum` that is no version asks for
/// nothing that a node could have: then none may.
pub fn may_start_from(running: Option<&str>, minimum: &str) -> Result<(), BelowMinimum> {
    let below = || BelowMinimum { running: running.map(str::to_owned), minimum: minimum.to_owned() };
    match (running.and_then(parse), parse(minimum)) {
        (Some(found), Some(least)) if found >= least => Ok(()),
        _ => Err(below()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_people_write_them() {
        for (text, expected) in [
            ("1.2.3", Some("1.2.3")),
            ("v1.2", Some("1.2.0")),
            ("V7", Some("7.0.0")),
            ("24.04", Some("24.4.0")),
            ("v1.2.0-rc.1+build.5", Some("1.2.0-rc.1+build.5")),
            ("1.2-rc1", Some("1.2.0-rc1")),
            ("latest", None),
            ("", None),
            ("v", None),
            ("1..2", None),
            ("1.2.3.4", None),
            ("+1", None),
            ("1.-2", None),
            ("1.2.3-", Some("1.2.3")),
            ("1.2.3-a..b", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(text).map(|version| version.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn constraints_leave_pre_releases_out_unless_they_name_one() {
        let holds = |constraint: Option<&str>, version: &str| {
            super::constraint(constraint).unwrap().matches(&parse(version).unwrap())
        };
        assert!(holds(None, "v3.1") && !holds(None, "v3.1-rc1"));
        assert!(holds(Some(">=1.2, <2"), "1.9") && !holds(Some(">=1.2, <2"), "2.0"));
        assert!(holds(Some("^2.0.0-rc1"), "2.0.0-rc2") && holds(Some("~1.4"), "1.4.9"));
        for text in ["", "newest", ">=", "1 - 2"] {
            assert!(constraint(Some(text)).unwrap_err().to_string().contains(">=1.2, <2"), "{text}");
        }
    }

    #[test]
    fn a_node_below_the_minimum_or_without_a_version_does_not_start() {
        assert!(may_start_from(Some("v1.4.0"), "1.4").is_ok());
        let below = may_start_from(Some("1.3.9"), "1.4").unwrap_err();
        assert!(below.to_string().contains("it runs 1.3.9"), "{below}");
        assert!(
            may_start_from(Some("nightly"), "1.4").is_err() && may_start_from(Some("9"), "many").is_err()
        );
        assert!(may_start_from(None, "1.4").unwrap_err().to_string().contains("not known"));
    }
}
