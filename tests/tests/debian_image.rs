//! The demo's images in slots, against three judges: `umoci unpack` of the same image, compared by `rsync`, and
//! `fsck.erofs`. Needs root, for the mounts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use evenkeel_e2e::{
    binaries::{self, Binary},
    host_packages, os_image,
    process::Scratch,
    registry::{Options, Registry},
    tools::{self, Tool},
};
use serde_json::Value;

/// A slot behind a loop device, mounted; both go when this is dropped.
struct Slot {
    device: String,
    root: PathBuf,
}

impl Slot {
    fn open(disk: &Path, slot: &Value, root: PathBuf) -> Result<Self> {
        let number = |key: &str| slot[key].as_u64().map(|number| number.to_string()).context(key.to_owned());
        let (offset, length) = (number("offset")?, number("length")?);
        let disk = disk.display().to_string();
        let losetup = ["--find", "--show", "--read-only", "--offset", &offset, "--sizelimit", &length, &disk];
        let device = run("losetup", &losetup)?.trim().to_owned();
        let opened = Self { device, root };
        fs::create_dir(&opened.root)?;
        run("mount", &["-t", "erofs", "-o", "ro", &opened.device, &opened.root.display().to_string()])?;
        Ok(opened)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.root).output();
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} failed: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_of_the_demos_images_hold_what_umoci_unpacks() -> Result<()> {
    host_packages::ensure(&[
        ("rsync", "rsync"),
        ("skopeo", "skopeo"),
        ("umoci", "umoci"),
        ("fsck.erofs", "erofs-utils"),
    ])
    .await?;
    let scratch = Scratch::new("debian-image")?;
    let registry = Registry::start(&scratch.path().join("registry"), Options::default()).await?;
    let tools = tools::ensure(&[Tool::Kubelet, Tool::Containerd, Tool::ContainerdShim]).await?;
    let binaries = binaries::build().await?;
    os_image::publish(&registry, &tools, &binaries).await?;
    let folder = scratch.path().to_owned();
    let repository = format!("{}/{}", registry.address(), os_image::REPOSITORY);
    let agent = binaries.path(Binary::Agent).display().to_string();
    tokio::task::spawn_blocking(move || judge(&folder, &repository, &agent)).await?
}

fn judge(folder: &Path, repository: &str, agent: &str) -> Result<()> {
    let disk = folder.join("disk.img");
    let file = disk.display().to_string();
    run(agent, &["disk", "create", &file, "--size", "4GiB", "--slot-size", "1GiB"])?;
    for (slot, tag) in [("a", "1"), ("b", "2")] {
        run(
            agent,
            &["stage", &format!("{repository}:{tag}"), "--disk", &file, "--slot", slot, "--plain-http"],
        )?;
        let slots: Vec<Value> =
            serde_json::from_str(&run(agent, &["slots", "--disk", &file, "--output", "json"])?)?;
        let written = slots.iter().find(|found| found["name"] == slot).context("the slot is listed")?;
        ensure!(written["state"] == "complete" && written["version"] == tag, "slot {slot}: {written}");
        let mounted = Slot::open(&disk, written, folder.join(format!("slot-{slot}")))?;
        run("fsck.erofs", &[&mounted.device])?;
        let expected = unpack(folder, repository, tag)?;
        compare(&expected, &mounted.root)?;
    }
    Ok(())
}

fn unpack(folder: &Path, repository: &str, tag: &str) -> Result<PathBuf> {
    let layout = folder.join("layout").display().to_string();
    let bundle = folder.join(format!("bundle-{tag}"));
    let (from, to) = (format!("docker://{repository}:{tag}"), format!("oci:{layout}:{tag}"));
    // umoci cannot read zstd.
    let gzip = ["--dest-compress", "--dest-compress-format=gzip"];
    let mut copy = vec!["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
    copy.extend(gzip.into_iter().chain([from.as_str(), to.as_str()]));
    run("skopeo", &copy)?;
    run("umoci", &["unpack", "--image", &format!("{layout}:{tag}"), &bundle.display().to_string()])?;
    Ok(bundle.join("rootfs"))
}

/// rsync lists what it would change to make one like the other: type, mode, owner, time to the nanosecond, attributes,
/// hard links, content. umoci gives folders the time at which it touched them, so that theirs are left out.
fn compare(expected: &Path, actual: &Path) -> Result<()> {
    let listing = |from: &Path, to: &Path| {
        let folders = [format!("{}/", from.display()), format!("{}/", to.display())];
        let flags =
            ["--dry-run", "--archive", "--hard-links", "--acls", "--xattrs", "--checksum", "--delete"];
        let more = ["--omit-dir-times", "--modify-window=-1", "--itemize-changes", "--numeric-ids"];
        let arguments: Vec<&str> =
            flags.into_iter().chain(more).chain(folders.iter().map(String::as_str)).collect();
        run("rsync", &arguments)
    };
    let entries = run("find", &[&actual.display().to_string()])?.lines().count();
    ensure!(entries > 3000, "the slot has only {entries} entries");
    let differences = listing(expected, actual)?;
    ensure!(differences.is_empty(), "differs from what umoci unpacks:\n{differences}");
    // The comparison itself would notice: against an empty folder everything differs.
    let nothing = actual.with_extension("nothing");
    fs::create_dir(&nothing)?;
    ensure!(listing(expected, &nothing)?.lines().count() >= entries - 1, "rsync compares nothing");
    Ok(())
}
