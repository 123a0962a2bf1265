//! Platforms, in OCI's terms, and the choice between them.

use std::fmt;

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, ImageIndex},
};
use serde::Deserialize;

use crate::{RegistryError, image};

/// What an image is made for, or what a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7`; absent where there is only one.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine that this program runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7".to_owned())),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// Whether an image for `self` runs on `machine`: 0 no, else the better the higher.
    pub(crate) fn fits(&self, machine: &Self) -> u8 {
        if self.names() != machine.names() {
            return 0;
        }
        match (self.baseline(), machine.baseline()) {
            (image, machine) if image == machine => 2,
            (None, _) => 1,
            _ => 0,
        }
    }

    /// System and architecture as OCI calls them. Some builders have the names that the machine itself has, as containerd knows.
    fn names(&self) -> (String, String) {
        let architecture = match self.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        (self.os.to_ascii_lowercase(), architecture)
    }

    /// The variant, with those names left out that mean what every such machine can do.
    fn baseline(&self) -> Option<&str> {
        match (self.names().1.as_str(), self.variant.as_deref()) {
            (_, None | Some("")) | ("amd64", Some("v1")) | ("arm64", Some("v8")) => None,
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// How well an entry fits that does not say what it is for: less than one that does.
const UNKNOWN: u8 = 1;

/// The digest of the index's best entry for a machine, or of its first for any. Of those that do not say what they are for, which
/// their configurations or their own entries tell, all: the best first.
pub(crate) fn choose(
    reference: &Reference,
    index: &ImageIndex,
    machine: Option<&Platform>,
) -> Result<Vec<String>, RegistryError> {
    let fits = |entry: &&Descriptor| match (platform_of(entry), machine) {
        (None, _) => UNKNOWN,
        // An attestation.
        (Some(platform), _) if platform.architecture == "unknown" => 0,
        (Some(_), None) => 2,
        (Some(platform), Some(machine)) => 2 * platform.fits(machine),
    };
    // Of equals the last is the maximum, and the first is meant.
    let best = index.manifests().iter().rev().max_by_key(fits).filter(|entry| fits(entry) > 0);
    let Some(entry) = best else {
        let found = index.manifests().iter().filter_map(platform_of).map(|platform| platform.to_string());
        let found: Vec<String> = found.filter(|platform| !platform.contains("unknown")).collect();
        let found = if found.is_empty() { "no platform".to_owned() } else { found.join(", ") };
        let Some(machine) = machine else {
            return Err(image::invalid(reference, "the index", "it names no image"));
        };
        return Err(wrong_architecture(reference, &found, machine));
    };
    let digest = |entry: &Descriptor| image::checkable(reference, entry.digest().as_ref()).map(str::to_owned);
    if fits(&entry) != UNKNOWN {
        return digest(entry).map(|digest| vec![digest]);
    }
    index.manifests().iter().filter(|entry| fits(entry) == UNKNOWN).map(digest).collect()
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let platform =
        entry.platform().as_ref().filter(|platform| !platform.architecture().to_string().is_empty())?;
    Some(Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone(),
    })
}

pub(crate) fn wrong_architecture(reference: &Reference, found: &str, machine: &Platform) -> RegistryError {
    RegistryError::WrongArchitecture {
        image: reference.whole(),
        found: found.to_owned(),
        wanted: machine.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
    }

    #[test]
    fn an_image_fits_its_own_machine_and_any_that_can_do_more() {
        for (image, machine, fits) in [
            ("linux/amd64", "linux/amd64", 2),
            ("linux/amd64/v1", "linux/amd64", 2),
            ("linux/amd64/v3", "linux/amd64", 0),
            ("linux/arm64/v8", "linux/arm64", 2),
            ("linux/arm", "linux/arm/v7", 1),
            ("linux/arm/v6", "linux/arm/v7", 0),
            ("linux/arm64", "linux/amd64", 0),
            ("windows/amd64", "linux/amd64", 0),
            ("linux/x86_64", "linux/amd64", 2),
            ("linux/aarch64/v8", "linux/arm64", 2),
            ("Linux/AMD64/v1", "linux/amd64", 2),
        ] {
            assert_eq!(platform(image).fits(&platform(machine)), fits, "{image} on {machine}");
        }
    }
}
