//! The layer that makes a node of a Debian: container runtime, kubelet, and what `evenkeel-agent init` adds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::debian::Debian;
use crate::{
    archive,
    binaries::{Binaries, Binary},
    cache,
    process::{Scratch, output},
    progress,
    tools::{Tool, Tools},
};

const PROGRAMS: [Tool; 3] = [Tool::Kubelet, Tool::Containerd, Tool::ContainerdShim];
const UNITS: [&str; 3] = ["containerd.service", "kubelet.service", "systemd-networkd.service"];
/// Nobody logs in, and an emulated machine takes a third of a second for each.
const MASKED: [&str; 9] = [
    "console-getty.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "getty.target",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "systemd-logind.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
];
/// Puts a writable layer over the Debian root and works in it as an image build would. In a mount namespace of its own:
/// whatever happens, no mount stays behind.
const BUILD: &str = r#"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
    cp -a "$5/." "$4/"
    mount -t proc proc "$4/proc"
    mount --bind /dev "$4/dev"
    mount -t tmpfs tmpfs "$4/run"
    "$6" init --root "$4"
"#;

/// Builds the layer, or takes it from the cache. Gives its file, compressed with zstd.
pub async fn build(debian: &Debian, tools: &Tools, binaries: &Binaries) -> Result<PathBuf> {
    let agent = binaries.path(Binary::Agent);
    let key = key(debian, tools, &agent)?;
    let folder = cache::entry("node", &key, async |folder| {
        let scratch = Scratch::new("image")?;
        let work = |name: &str| scratch.path().join(name);
        let (lower, upper) = (work("lower"), work("upper"));
        for name in ["upper", "work", "root"] {
            fs::create_dir(work(name)).with_context(|| format!("make the folder {name}"))?;
        }
        archive::unpack(&debian.archive, &lower).await?;
        files(&work("files"), tools).await?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-euc", BUILD, "sh"]);
        command.args([&lower, &upper, &work("work"), &work("root"), &work("files"), &agent]);
        progress::long("make the image bootable: evenkeel-agent init, with dracut", output(command)).await?;
        let archive = work("layer.tar");
        archive::pack(&upper, &archive).await?;
        archive::compress(&archive, &folder.join("layer.tar.zst")).await
    })
    .await?;
    Ok(folder.join("layer.tar.zst"))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images/node")
}

fn key(debian: &Debian, tools: &Tools, agent: &Path) -> Result<String> {
    let mut parts: Vec<Vec<u8>> = vec![
        debian.key.clone().into(),
        BUILD.into(),
        UNITS.concat().into(),
        MASKED.concat().into(),
        archive::PACKING.concat().into(),
    ];
    // The folder of a tool is named by all that it is built from.
    parts.extend(PROGRAMS.map(|tool| tools.path(tool).into_os_string().into_encoded_bytes()));
    parts.push(fs::read(agent).with_context(|| format!("read {}", agent.display()))?);
    let mut open = vec![source()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for path in files {
        parts.push(path.strip_prefix(source()).unwrap_or(&path).as_os_str().as_encoded_bytes().to_vec());
        parts.push(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(cache::key(parts.iter().map(Vec::as_slice)))
}

/// What is copied into the image.
async fn files(folder: &Path, tools: &Tools) -> Result<()> {
    let mut copy = Command::new("cp");
    // The checkout's owner and modes say nothing.
    copy.args(["-r", "--no-preserve=ownership,mode"]).args([&source(), folder]);
    output(copy).await?;
    let programs = folder.join("usr/bin");
    let wants = folder.join("etc/systemd/system/multi-user.target.wants");
    for path in [&programs, &wants] {
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    }
    for tool in PROGRAMS {
        fs::copy(tools.path(tool), programs.join(tool.name()))
            .with_context(|| format!("copy {}", tool.name()))?;
    }
    for unit in UNITS {
        std::os::unix::fs::symlink(format!("/usr/lib/systemd/system/{unit}"), wants.join(unit))
            .with_context(|| format!("enable {unit}"))?;
    }
    for unit in MASKED {
        std::os::unix::fs::symlink("/dev/null", folder.join("etc/systemd/system").join(unit))
            .with_context(|| format!("mask {unit}"))?;
    }
    Ok(())
}
