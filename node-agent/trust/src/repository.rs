//! Which repositories a rule is about.

use std::str::FromStr;

/// Repositories: one, all below a place, or every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`.
    Every,
    /// `registry.example/os`: this one and no other.
    One(String),
    /// `registry.example/os/*`: those whose names begin with `registry.example/os/`, however deep.
    Below(String),
}

/// A text that names no repositories.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} names no repositories: write REGISTRY/REPOSITORY, or a name that ends with /*, or * for all of them"
)]
pub struct PatternError(String);

impl Pattern {
    /// Whether `repository`, which has its registry in front, is one of them.
    pub fn covers(&self, repository: &str) -> bool {
        match self {
            Self::Every => true,
            Self::One(one) => one == repository,
            Self::Below(place) => repository.strip_prefix(place).is_some_and(|rest| !rest.is_empty()),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError(text.to_owned());
        let name = match text.strip_suffix('*') {
            Some("") => return Ok(Self::Every),
            Some(place) => place.strip_suffix('/').ok_or_else(error)?,
            None => text,
        };
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:/".contains(&byte);
        let (_, path) = name.split_once('/').unwrap_or((name, ""));
        // A colon begins a registry's port; in the path it would begin a tag, and cover nothing.
        if !name.bytes().all(allowed) || name.split('/').any(str::is_empty) || path.contains(':') {
            return Err(error());
        }
        match (text.ends_with('*'), name.contains('/')) {
            (true, _) => Ok(Self::Below(format!("{name}/"))),
            (false, true) => Ok(Self::One(name.to_owned())),
            // A registry alone is none, and a short name would mean another thing to everybody.
            (false, false) => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_says_and_no_neighbour() {
        for (pattern, repository, covered) in [
            ("*", "r.example/os", true),
            ("r.example/os", "r.example/os", true),
            ("r.example/os", "r.example/os2", false),
            ("r.example/os", "r.example/os/arm", false),
            ("r.example/os/*", "r.example/os/arm", true),
            ("r.example/os/*", "r.example/os/arm/v7", true),
            ("r.example/os/*", "r.example/os", false),
            ("r.example/os/*", "r.example/os2/arm", false),
            ("r.example/*", "r.example/os", true),
            ("r.example/*", "r.example.evil/os", false),
            ("r.example:5000/*", "r.example/os", false),
        ] {
            let read: Pattern = pattern.parse().unwrap();
            assert_eq!(read.covers(repository), covered, "{pattern} {repository}");
        }
    }

    #[test]
    fn what_names_no_repository() {
        for text in [
            "",
            "os",
            "r.example/",
            "/os",
            "r.example//os",
            "r.example/o*",
            "*/os",
            "r.example/OS",
            "r.example/os:1",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
