//! Whether a step is done on a machine.

use regex::Regex;

use super::Step;

/// What conditions are asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// `ID` of os-release.
    pub id: String,
    /// `NAME` of os-release.
    pub name: String,
    /// `VERSION_ID` of os-release.
    pub version: String,
    /// The host name.
    pub node: String,
}

pub(super) fn check(step: &Step) -> Result<(), String> {
    for expression in [&step.only_os, &step.only_os_version, &step.node].into_iter().flatten() {
        Regex::new(expression).map_err(|error| format!("the condition {expression:?}: {error}"))?;
    }
    Ok(())
}

impl Step {
    /// Whether it is meant for a system; what its `if` says is still to be asked.
    pub fn is_for(&self, system: &System) -> bool {
        let matches = |expression: &Option<String>, texts: &[&str]| {
            expression.as_ref().is_none_or(|expression| {
                Regex::new(expression).is_ok_and(|regex| texts.iter().any(|text| regex.is_match(text)))
            })
        };
        matches(&self.only_os, &[&system.id, &system.name])
            && matches(&self.only_os_version, &[&system.version])
            && matches(&self.node, &[&system.node])
    }
}
