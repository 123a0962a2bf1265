//! `doctor`.

use std::path::PathBuf;

use anyhow::Result;
use evenkeel_node_agent_core::doctor::{self, Finding, Verdict};
use serde::Serialize;

use super::{Unfit, disk::STATE_DIR};
use crate::{
    args::{DoctorArgs, Output},
    doctor::{Look, Place, look},
    tell::{AnswerError, answer},
};

/// The command's JSON form.
#[derive(Serialize)]
struct Report<'a> {
    verdict: Verdict,
    checks: &'a [Finding],
}

pub(super) fn doctor(args: &DoctorArgs) -> Result<()> {
    let place = Place {
        disk: args.disk.disk.clone(),
        machine: args.disk.disk.is_none(),
        state_dir: args.state.state_dir.clone().unwrap_or_else(|| PathBuf::from(STATE_DIR)),
        proc: args.disk.proc.clone(),
        reboot_command: args.reboot_command.clone(),
    };
    let findings = doctor::examine(&look(&place, Look::AndWrite));
    let verdict = doctor::overall(&findings);
    match args.output {
        Output::Json => answer!("{}", serde_json::to_string_pretty(&Report { verdict, checks: &findings })?)?,
        Output::Text => findings.iter().try_for_each(print)?,
    }
    if verdict < Verdict::Fail {
        return Ok(());
    }
    Err(Unfit(findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count()).into())
}

fn print(finding: &Finding) -> Result<(), AnswerError> {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    answer!("{verdict:<5} {:<17} {}", finding.check, finding.message)?;
    if let Some(advice) = &finding.advice {
        answer!("{:24}{advice}", "")?;
    }
    Ok(())
}
