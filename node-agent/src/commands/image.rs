//! `stage` and `verify-image`: what needs a registry.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use evenkeel_crds::node_plan::Progress;
use evenkeel_registry::{Platform, Registry};
use evenkeel_trust::{Policy, Subject};
use serde_json::json;

use super::{refused, slot::Situation, source::Source};
use crate::{
    args::{Output, StageArgs, VerifyImageArgs},
    own_changes,
    stage::{self, Meter, StageRequest, Staged},
    tell::{answer, tell},
};

const PROGRESS_TERMINAL: Duration = Duration::from_millis(500);
const PROGRESS_LOG: Duration = Duration::from_secs(5);

pub(super) fn stage(args: &StageArgs) -> Result<()> {
    let situation = Situation::look_remembering(&args.slot.disk, &args.state)?;
    let slot = situation.passive(args.slot.slot.as_deref())?;
    let running = situation.running().map(str::to_owned);
    let request = Source::of(&args.source)?.request(situation.disk, &slot, &args.image);
    let runtime = tokio::runtime::Runtime::new()?;
    let staged = runtime.block_on(stage_with_progress(&request))?;
    if let Some(running) = running
        && let Err(error) = tell_conflicts(&request, &running, &args.slot.disk.proc)
    {
        tell!("conflicts with this machine's own changes are unknown: {error:#}");
    }
    match args.output {
        Output::Json => answer!("{}", serde_json::to_string_pretty(&account(&request.slot, &staged))?)?,
        Output::Text => {
            let Staged { record, cost } = &staged;
            answer!(
                "slot {} holds {} ({}): {} MiB downloaded, {} MiB copied, {} MiB written, {} MiB there already, {} ms",
                request.slot,
                record.image,
                record.version,
                cost.bytes_downloaded >> 20,
                cost.bytes_copied >> 20,
                cost.bytes_written >> 20,
                cost.bytes_skipped >> 20,
                cost.milliseconds
            )?;
        }
    }
    Ok(())
}

/// Tells what of the machine's own is in conflict with the image.
fn tell_conflicts(request: &StageRequest, running: &str, proc: &Path) -> Result<()> {
    let (before, after) = (request.disk.slot(running)?, request.disk.slot(&request.slot)?);
    for path in own_changes::conflicts(&own_changes::of_machine(proc), &before, &after)? {
        tell!(
            "{}: this machine changed it, and the image has another version than the one before: the machine's stays",
            path.display()
        );
    }
    Ok(())
}

pub(super) fn verify(args: &VerifyImageArgs) -> Result<()> {
    let Source { registry, trust } = Source::of(&args.source)?;
    let trust =
        trust.ok_or_else(|| refused("give at least one --key: without any, every image is trusted"))?;
    let registry = Registry::new(registry)?;
    let image = tokio::runtime::Runtime::new()?.block_on(async {
        let image = registry.resolve(&args.image).await?.image;
        check(&registry, &trust, &image.parse()?).await.map(|()| image)
    })?;
    Ok(answer!("{image}")?)
}

/// The digest of an image that can be had, with its layers if all of them are to be fetched, and was signed by those who
/// must have.
pub(super) async fn find(image: &str, source: &Source, all_layers: bool) -> Result<String> {
    let registry = Registry::new(source.registry.clone())?;
    let image = registry.image(image, &Platform::host()).await?;
    if let Some(trust) = &source.trust {
        check(&registry, trust, &image.subject()).await?;
    }
    if all_layers {
        registry.has_layers(&image, &image.layers.iter().collect::<Vec<_>>()).await?;
    }
    Ok(image.digest)
}

async fn check(registry: &Registry, trust: &Policy, subject: &Subject) -> Result<()> {
    Ok(trust.check(subject, &registry.signatures(subject).await?)?)
}

fn account(slot: &str, staged: &Staged) -> serde_json::Value {
    let Staged { record, cost } = staged;
    json!({
        "slot": slot,
        "image": record.image,
        "digest": record.digest,
        "version": record.version,
        "rootHash": record.root_hash,
        "kernel": record.kernel.path,
        "initrd": record.initrd.path,
        "bytesDownloaded": cost.bytes_downloaded,
        "bytesCopied": cost.bytes_copied,
        "bytesWritten": cost.bytes_written,
        "bytesSkipped": cost.bytes_skipped,
        "milliseconds": cost.milliseconds,
    })
}

pub(super) async fn stage_with_progress(request: &StageRequest) -> Result<Staged> {
    let meter = Arc::new(Meter::default());
    let staging = stage::stage(request, &meter);
    tokio::pin!(staging);
    let terminal = std::io::stderr().is_terminal();
    let pause = if terminal { PROGRESS_TERMINAL } else { PROGRESS_LOG };
    loop {
        tokio::select! {
            staged = &mut staging => {
                if terminal {
                    tell!("");
                }
                return Ok(staged?);
            }
            () = tokio::time::sleep(pause) => show(&meter, terminal),
        }
    }
}

fn show(meter: &Meter, terminal: bool) {
    let (begin, end) = if terminal { ("\r", "   ") } else { ("", "\n") };
    // Progress that cannot be shown is no reason to stop.
    let _ = write!(std::io::stderr(), "{begin}{}{end}", words(&meter.progress()));
}

fn words(progress: &Progress) -> String {
    if progress.bytes_total == 0 {
        // How much there is, is not known before.
        return "asking for the image".to_owned();
    }
    if progress.bytes_done == progress.bytes_total {
        return "verifying".to_owned();
    }
    format!(
        "{} of {} MiB, {} MiB/s{}",
        progress.bytes_done >> 20,
        progress.bytes_total >> 20,
        progress.bytes_per_second >> 20,
        progress.seconds_left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_begun_is_not_verified() {
        let at = |bytes_done, bytes_total| {
            words(&Progress { bytes_done, bytes_total, bytes_per_second: 5 << 20, seconds_left: Some(7) })
        };
        assert_eq!(at(0, 0), "asking for the image");
        assert_eq!(at(3 << 20, 9 << 20), "3 of 9 MiB, 5 MiB/s, 7 s left");
        assert_eq!(at(9 << 20, 9 << 20), "verifying");
    }
}
