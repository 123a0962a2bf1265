//! `install`, `stage` and `verify-image`: what needs a registry.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use evenkeel_registry::{Platform, Registry};
use evenkeel_trust::{Policy, Subject};
use serde_json::json;

use super::{recovery, refused, slot::Situation, source::Source};
use crate::{
    args::{InstallArgs, Output, StageArgs, VerifyImageArgs},
    boot::Loader,
    disk::{Disk, DiskError, NoBiosPlace},
    esp,
    install::{self, OnBios},
    mend, own_changes,
    stage::{self, Meter, StageRequest, Staged},
};

/// The slot of an installation.
const FIRST_SLOT: &str = "a";
const PROGRESS_TERMINAL: Duration = Duration::from_millis(500);
const PROGRESS_LOG: Duration = Duration::from_secs(5);

pub(super) fn install(args: &InstallArgs) -> Result<()> {
    let cloud_config = args.cloud_config.as_deref().map(read_cloud_config).transpose()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let source = Source::of(&args.source)?;
    // An image that cannot be had must not cost a disk.
    for image in [Some(&args.image), args.recovery_image.as_ref()].into_iter().flatten() {
        runtime.block_on(find(image, &source))?;
    }
    let disk = open_or_create(args)?;
    install::keeps_loader(&disk, args.bootloader)?;
    if let Some(text) = &cloud_config {
        install::write_cloud_config(&disk, text)?;
    }
    let request = source.request(disk, FIRST_SLOT, &args.image);
    let staged = runtime.block_on(stage_with_progress(&request))?;
    let slot = request.disk.slot(FIRST_SLOT)?;
    let on_bios = install::make_bootable_with(&request.disk, &slot, &staged.record, args.bootloader)?;
    eprintln!(
        "{} boots {} ({}) from slot {FIRST_SLOT}",
        args.disk.display(),
        args.image,
        staged.record.version
    );
    tell_of_bios(on_bios, args.bootloader);
    match &args.recovery_image {
        Some(image) => recovery::write_recovery(request.disk, image, &source, &runtime),
        None => Ok(mend::restore_last_resort(&request.disk)?),
    }
}

/// Says whether a machine with BIOS boots the disk, where the loader could.
pub(super) fn tell_of_bios(on_bios: OnBios, loader: Loader) {
    if loader != Loader::Grub {
        return;
    }
    match on_bios {
        OnBios::Boots => eprintln!("machines with UEFI and with BIOS boot it"),
        OnBios::NoLoader => eprintln!(
            "nothing was written for machines with BIOS: the image has no boot.img and core.img in /usr/lib/grub/i386-pc"
        ),
        OnBios::NoPlace(NoBiosPlace::Blocks) => {
            eprintln!("machines with BIOS do not boot it: no BIOS boots a disk with blocks of 4096 bytes");
        }
        OnBios::NoPlace(NoBiosPlace::Partition) => eprintln!(
            "machines with BIOS do not boot it: it has no partition evenkeel-bios, which disks of this version have \
             (`install --force` makes the disk anew)"
        ),
    }
}

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
        eprintln!("conflicts with this machine's own changes are unknown: {error:#}");
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&account(&request.slot, &staged))?),
        Output::Text => {
            let Staged { record, cost } = &staged;
            println!(
                "slot {} holds {} ({}): {} MiB downloaded, {} MiB copied, {} MiB written, {} MiB there already, {} ms",
                request.slot,
                record.image,
                record.version,
                cost.bytes_downloaded >> 20,
                cost.bytes_copied >> 20,
                cost.bytes_written >> 20,
                cost.bytes_skipped >> 20,
                cost.milliseconds
            );
        }
    }
    Ok(())
}

/// Tells what of the machine's own is in conflict with the image.
fn tell_conflicts(request: &StageRequest, running: &str, proc: &Path) -> Result<()> {
    let (before, after) = (request.disk.slot(running)?, request.disk.slot(&request.slot)?);
    for path in own_changes::conflicts(&own_changes::of_machine(proc), &before, &after)? {
        eprintln!(
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
    println!("{image}");
    Ok(())
}

/// Whether an image can be had, and was signed by those who must have.
async fn find(image: &str, source: &Source) -> Result<()> {
    let registry = Registry::new(source.registry.clone())?;
    let image = registry.image(image, &Platform::host()).await?;
    match &source.trust {
        Some(trust) => check(&registry, trust, &image.subject()).await,
        None => Ok(()),
    }
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

fn read_cloud_config(path: &Path) -> Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("read the cloud-config {}", path.display()))?;
    super::cloud_config::understood(path, &text)?;
    Ok(text)
}

/// A disk with our layout is used as it is, unless it was never finished; one with somebody else's is never touched
/// without being told to.
fn open_or_create(args: &InstallArgs) -> Result<Disk> {
    let (path, sizes) = (&args.disk, args.sizes.into());
    if args.force {
        return Ok(install::replace_disk(path, sizes)?);
    }
    let empty_file = fs::metadata(path).map_or(true, |found| found.is_file() && found.len() == 0);
    if empty_file || Disk::is_unfinished(path) {
        return Ok(install::create_disk(path, sizes)?);
    }
    match Disk::open(path) {
        Err(DiskError::NoTable { .. }) => Ok(install::create_disk(path, sizes)?),
        // A kernel that saw only the copy that is damaged, or did not look for a table when the disk came.
        Err(DiskError::NoNode { .. }) if Disk::mend_table(path).is_ok() => brought_back(Disk::open(path)?),
        Err(error) => Err(error.into()),
        Ok(disk) if disk.slot(FIRST_SLOT).is_err() => Err(refused(format!(
            "{} has partitions that are not Evenkeel's: if nothing on it is needed, say --force",
            path.display()
        ))),
        Ok(disk) => brought_back(disk),
    }
}

/// A disk of ours that has lost what boots it, as far as the image that is installed needs it.
fn brought_back(disk: Disk) -> Result<Disk> {
    let path = disk.path().display();
    for what in Disk::mend_table(disk.path())? {
        eprintln!("{path} had lost {what}: written again");
    }
    if mend::format_unreadable(&disk)? {
        eprintln!("{path} has a boot partition that cannot be read: it is made anew");
    }
    // An installation that was cut off before this one is to leave nothing.
    if let Err(error) = esp::reclaim(&disk) {
        eprintln!("what it left on the boot partition stays: {:#}", anyhow::Error::from(error));
    }
    Ok(disk)
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
                    eprintln!();
                }
                return Ok(staged?);
            }
            () = tokio::time::sleep(pause) => show(&meter, terminal),
        }
    }
}

fn show(meter: &Meter, terminal: bool) {
    let progress = meter.progress();
    let (begin, end) = if terminal { ("\r", "   ") } else { ("", "\n") };
    let line = if progress.bytes_done == progress.bytes_total {
        "verifying".to_owned()
    } else {
        format!(
            "{} of {} MiB, {} MiB/s{}",
            progress.bytes_done >> 20,
            progress.bytes_total >> 20,
            progress.bytes_per_second >> 20,
            progress.seconds_left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default()
        )
    };
    // Progress that cannot be shown is no reason to stop.
    let _ = write!(std::io::stderr(), "{begin}{line}{end}");
}
