//! Platforms, in OCI's terms.

use std::fmt;

use serde::Deserialize;

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
        if self.os != machine.os || self.architecture != machine.architecture {
            return 0;
        }
        match (self.baseline(), machine.baseline()) {
            (image, machine) if image == machine => 2,
            (None, _) => 1,
            _ => 0,
        }
    }

    /// The variant, with those names left out that mean what every such machine can do.
    fn baseline(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
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
        ] {
            assert_eq!(platform(image).fits(&platform(machine)), fits, "{image} on {machine}");
        }
    }
}
