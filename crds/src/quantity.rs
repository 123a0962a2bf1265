//! A count that may be given as a share of a whole.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A whole number, or a percentage of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountOrPercent {
    /// Exactly so many.
    Count(u32),
    /// So many hundredths, 1 to 100.
    Percent(u32),
}

/// Why a value is neither a positive count nor a percentage from 1 % to 100 %.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is neither a whole number above 0 nor a percentage from \"1%\" to \"100%\"")]
pub struct NotACount(String);

impl TryFrom<&IntOrString> for CountOrPercent {
    type Error = NotACount;

    fn try_from(value: &IntOrString) -> Result<Self, NotACount> {
        match value {
            IntOrString::Int(count) => match u32::try_from(*count) {
                Ok(count) if count > 0 => Ok(Self::Count(count)),
                _ => Err(NotACount(count.to_string())),
            },
            IntOrString::String(text) => text
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok())
                .filter(|percent| (1..=100).contains(percent))
                .map(Self::Percent)
                .ok_or_else(|| NotACount(text.clone())),
        }
    }
}

impl CountOrPercent {
    /// The number out of `whole` that is tolerated: as [`Self::of`], but of no size at least.
    pub fn tolerated(value: &IntOrString, whole: usize) -> Result<usize, NotACount> {
        let none = match value {
            IntOrString::Int(count) => *count == 0,
            IntOrString::String(text) => text == "0%",
        };
        if none {
            return Ok(0);
        }
        Ok(match Self::try_from(value)? {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => whole * percent as usize / 100,
        })
    }

    /// The number out of `whole`; a percentage is rounded down, and never to less than one.
    pub fn of(self, whole: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (whole * percent as usize / 100).max(1),
        }
    }
}
