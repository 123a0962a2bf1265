//! cloud-init's `growpart`, of which the mode is meant for us: the state partition alone grows, and by the kernel.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Visitor};

/// Whether a disk that became larger is used to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growpart {
    /// `auto`, or `growpart`, which names the program that does it elsewhere.
    On,
    /// `off`, or `false`, which is what older YAML makes of it.
    Off,
}

/// The key's value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Module {
    pub mode: Option<Growpart>,
}

impl<'de> Deserialize<'de> for Growpart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Growpart;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `growpart` or `off` as the mode of growpart")
            }
            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Growpart, E> {
                if on {
                    Err(E::invalid_value(serde::de::Unexpected::Bool(on), &self))
                } else {
                    Ok(Growpart::Off)
                }
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Growpart, E> {
                match word {
                    "auto" | "growpart" => Ok(Growpart::On),
                    "off" => Ok(Growpart::Off),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn the_last_document_that_says_anything_has_its_way() {
        let said = |mode: &str| parse(&format!("#cloud-config\n{mode}\n")).unwrap();
        for (on, mode) in [
            (true, "growpart: {mode: auto}"),
            (true, "growpart: {mode: growpart}"),
            (true, "growpart: {}"),
            (true, "hostname: a"),
            (false, "growpart: {mode: off}"),
            (false, "growpart: {mode: 'off'}"),
            (false, "growpart: {mode: false}"),
        ] {
            assert_eq!(said(mode).config.grows(), on, "{mode}");
        }
        let mut config = said("growpart: {mode: off}").config;
        config.append(said("hostname: a").config);
        assert!(!config.grows());
        config.append(said("growpart: {mode: auto}").config);
        assert!(config.grows());
        let parsed = said("growpart: {mode: off, devices: [/]}");
        assert_eq!(parsed.unknown, ["growpart.devices"]);
        for wrong in ["gpart", "true", "[]", "7"] {
            let message =
                parse(&format!("#cloud-config\ngrowpart: {{mode: {wrong}}}")).unwrap_err().to_string();
            assert!(message.contains("the mode of growpart"), "{message}");
        }
    }
}
