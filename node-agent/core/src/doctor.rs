//! Whether a machine could upgrade and return: verdicts on what was seen of it, each with what a person can do.
//!
//! `fail` means that an upgrade would not start, or that a bad image might not be left again; `warn` that something
//! narrower is missing.

mod disk;
mod facts;
mod host;
mod secure_boot;

use serde::Serialize;

pub use facts::{
    BootFileFact, DiskFacts, EspFacts, Facts, HostFacts, Init, LoaderFacts, Program, StateFacts, Watchdog,
};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// An upgrade works, and something else does not.
    Warn,
    /// An upgrade, or the way back from it, does not work.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check, one word.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub message: String,
    /// What a person can do about it; absent when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All checks that can be made with these facts, in the order in which a person would mend them.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let host = facts.host.as_ref().map(host::examine).unwrap_or_default();
    let firmware = secure_boot::examine(facts);
    host.into_iter().chain(disk::examine(facts)).chain(firmware).chain([host::clock(facts)]).collect()
}

/// The worst of the verdicts.
pub fn overall(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, message: message.into(), advice: None }
    }

    fn warn(check: &'static str, message: impl Into<String>, advice: &str) -> Self {
        Self { check, verdict: Verdict::Warn, message: message.into(), advice: Some(advice.to_owned()) }
    }

    fn fail(check: &'static str, message: impl Into<String>, advice: &str) -> Self {
        Self { check, verdict: Verdict::Fail, message: message.into(), advice: Some(advice.to_owned()) }
    }
}

#[cfg(test)]
mod tests;
