//! `evenkeel-agent init`: makes an image bootable from a slot. Run while the image is built.

use std::{
    env, fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::install::{GRUB, SHIM, SIGNED_GRUB, SYSTEMD_BOOT};

const UNITS: &str = "usr/lib/systemd/system";
/// Path of this program in the image.
const AGENT: &str = "usr/lib/evenkeel/evenkeel-agent";
/// Programs in it say whether a trial boot is healthy.
const HEALTH_FOLDER: &str = "usr/lib/evenkeel/health.d";

/// What is written: path, content, mode.
const FILES: [(&str, &str, u32); 16] = [
    (
        "usr/lib/dracut/modules.d/90evenkeel/module-setup.sh",
        include_str!("init/files/dracut/module-setup.sh"),
        0o755,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-start.sh",
        include_str!("init/files/dracut/evenkeel-start.sh"),
        0o755,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-state.sh",
        include_str!("init/files/dracut/evenkeel-state.sh"),
        0o755,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-lib.sh",
        include_str!("init/files/dracut/evenkeel-lib.sh"),
        0o644,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-count.sh",
        include_str!("init/files/dracut/evenkeel-count.sh"),
        0o755,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-root.sh",
        include_str!("init/files/dracut/evenkeel-root.sh"),
        0o755,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-emergency.sh",
        include_str!("init/files/dracut/evenkeel-emergency.sh"),
        0o755,
    ),
    (
        "usr/lib/dracut/modules.d/90evenkeel/evenkeel-watchdog.sh",
        include_str!("init/files/dracut/evenkeel-watchdog.sh"),
        0o755,
    ),
    ("usr/lib/systemd/system.conf.d/90-evenkeel.conf", include_str!("init/files/watchdog.conf"), 0o644),
    ("usr/lib/dracut/dracut.conf.d/90-evenkeel.conf", include_str!("init/files/dracut.conf"), 0o644),
    (
        "usr/lib/systemd/system/evenkeel-guard.service",
        include_str!("init/files/evenkeel-guard.service"),
        0o644,
    ),
    (
        "usr/lib/systemd/system/evenkeel-cloud-config.service",
        include_str!("init/files/evenkeel-cloud-config.service"),
        0o644,
    ),
    (
        "usr/lib/systemd/system/evenkeel-cloud-config-boot.service",
        include_str!("init/files/evenkeel-cloud-config-boot.service"),
        0o644,
    ),
    (
        "usr/lib/systemd/system/evenkeel-cloud-config-network.service",
        include_str!("init/files/evenkeel-cloud-config-network.service"),
        0o644,
    ),
    (
        "usr/lib/systemd/system/evenkeel-cloud-config-live.path",
        include_str!("init/files/evenkeel-cloud-config-live.path"),
        0o644,
    ),
    (
        "usr/lib/systemd/system/evenkeel-cloud-config-live.service",
        include_str!("init/files/evenkeel-cloud-config-live.service"),
        0o644,
    ),
];

/// Links: path, target. systemd's own blessing of a boot would keep a trial that nobody has judged.
const LINKS: [(&str, &str); 5] = [
    ("usr/lib/systemd/system/sysinit.target.wants/evenkeel-guard.service", "../evenkeel-guard.service"),
    (
        "usr/lib/systemd/system/sysinit.target.wants/evenkeel-cloud-config.service",
        "../evenkeel-cloud-config.service",
    ),
    (
        "usr/lib/systemd/system/multi-user.target.wants/evenkeel-cloud-config-live.path",
        "../evenkeel-cloud-config-live.path",
    ),
    ("etc/systemd/system/systemd-bless-boot.service", "/dev/null"),
    ("etc/systemd/system-generators/systemd-bless-boot-generator", "/dev/null"),
];

/// One of these, or shim and a GRUB that is signed.
const LOADERS: [&str; 2] = [SYSTEMD_BOOT, GRUB];
/// Where distributions put it.
const DMSETUP: [&str; 3] = ["usr/sbin/dmsetup", "usr/bin/dmsetup", "sbin/dmsetup"];
const WDCTL: [&str; 2] = ["usr/bin/wdctl", "bin/wdctl"];
const E2FSCK: [&str; 2] = ["usr/sbin/e2fsck", "sbin/e2fsck"];
const KERNEL_PACKAGE: &str = "linux-image-amd64";
const MKE2FS: [&str; 2] = ["usr/sbin/mke2fs", "sbin/mke2fs"];

/// A read-only root cannot grow these at boot.
const MOUNT_POINTS: [&str; 12] =
    ["boot", "dev", "etc", "home", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var"];

/// Why an image could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file could not be written.
    #[error("{operation} {path}{advice}", advice = advice(source))]
    Io {
        /// `write`, `link`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// This program is to go into the image, and cannot be found.
    #[error(
        "find this program, to copy it into the image: no /proc is mounted here. Mount it (`mount -t proc proc /proc`), or \
         start the program by its whole path"
    )]
    NoSelf(#[source] io::Error),
    /// The image lacks something.
    #[error("the image has no {what}: install the package {package} before `evenkeel-agent init`")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Debian's name of the package that has it.
        package: &'static str,
    },
    /// A kernel cannot verify a slot.
    #[error(
        "kernel {0} of the image has no module dm-verity (CONFIG_DM_VERITY), which verifies what is read from a slot: \
         install a kernel package that has it before `evenkeel-agent init`"
    )]
    NoVerity(String),
    /// dracut said no.
    #[error("build the initrd of kernel {kernel} with dracut: {status}; its messages are above")]
    Dracut {
        /// The kernel's version.
        kernel: String,
        /// How it ended.
        status: String,
    },
}

/// Prepares the image whose root is `root`, and builds an initrd for each of its kernels if `initrd` says so.
pub fn init(root: &Path, initrd: bool) -> Result<(), InitError> {
    for folder in MOUNT_POINTS.into_iter().chain([HEALTH_FOLDER]) {
        make_folder(&root.join(folder))?;
    }
    for (path, content, mode) in FILES {
        write(&root.join(path), content.as_bytes(), mode)?;
    }
    for (path, target) in LINKS {
        link(&root.join(path), target)?;
    }
    copy_self(&root.join(AGENT))?;
    enable_tmp(root)?;
    // Empty, not "uninitialized": each machine gets an ID of its own at its first boot, and systemd does not enable all
    // units, as it would for a system that it takes for new.
    write(&root.join("etc/machine-id"), b"", 0o444)?;
    require_loader(root)?;
    // The initrd maps the root through dm-verity with it.
    require(root, &DMSETUP, "dmsetup", "dmsetup")?;
    // The initrd starts the watchdog of a trial with it.
    require(root, &WDCTL, "wdctl", "util-linux")?;
    // The initrd mends the state's file system with it.
    require(root, &E2FSCK, "e2fsck", "e2fsprogs")?;
    // The initrd of a machine that begins anew makes its file systems with it.
    require(root, &MKE2FS, "mke2fs", "e2fsprogs")?;
    require_kernel(root)?;
    if initrd { build_initrds(root) } else { Ok(()) }
}

/// One where installation looks for it.
fn require_loader(root: &Path) -> Result<(), InitError> {
    if brings(root, &[SIGNED_GRUB]) && !brings(root, &LOADERS) {
        return require(root, &[SHIM], "shim, which starts the signed GRUB", "shim-signed");
    }
    let packages =
        "systemd-boot-efi (or grub-efi-amd64-bin; for Secure Boot shim-signed and grub-efi-amd64-signed)";
    require(root, &LOADERS, "boot loader", packages)
}

/// One where staging looks for it.
fn require_kernel(root: &Path) -> Result<(), InitError> {
    let names = |folder: &str| fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let in_modules = names("usr/lib/modules").any(|entry| entry.path().join("vmlinuz").exists());
    let in_boot = names("boot").any(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz"));
    // A link at the root leads to another one, which may be named from the image's own root.
    if in_modules || in_boot || root.join("vmlinuz").symlink_metadata().is_ok() {
        return Ok(());
    }
    Err(InitError::Missing { what: "kernel", package: KERNEL_PACKAGE })
}

fn build_initrds(root: &Path) -> Result<(), InitError> {
    require(root, &["usr/bin/dracut"], "dracut", "dracut")?;
    let modules = root.join("usr/lib/modules");
    let mut kernels: Vec<String> = fs::read_dir(&modules)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("modules.dep").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    kernels.sort();
    if kernels.is_empty() {
        return Err(InitError::Missing { what: "kernel in /usr/lib/modules", package: KERNEL_PACKAGE });
    }
    for kernel in &kernels {
        require_verity(&modules.join(kernel), kernel)?;
        build_initrd(root, kernel)?;
    }
    Ok(())
}

/// depmod lists a kernel's modules in `modules.dep` and what is built into it in `modules.builtin`.
fn require_verity(modules: &Path, kernel: &str) -> Result<(), InitError> {
    for list in ["modules.dep", "modules.builtin"] {
        let path = modules.join(list);
        match fs::read_to_string(&path) {
            Ok(text) if text.contains("/dm-verity.ko") => return Ok(()),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("read", &path, source));
            }
            _ => {}
        }
    }
    Err(InitError::NoVerity(kernel.to_owned()))
}

fn build_initrd(root: &Path, kernel: &str) -> Result<(), InitError> {
    let mut command = if root == Path::new("/") {
        Command::new("dracut")
    } else {
        let mut command = Command::new("chroot");
        // The caller's folder for temporary files may not be there in the image.
        command.arg(root).arg("dracut").env_remove("TMPDIR");
        command
    };
    let image = format!("/boot/initrd.img-{kernel}");
    command.args(["--force", "--no-hostonly", "--kver", kernel, &image]);
    let status = command.status().map_err(|source| failed("run dracut in", root, source))?;
    if status.success() {
        return Ok(());
    }
    Err(InitError::Dracut { kernel: kernel.to_owned(), status: status.to_string() })
}

/// Debian keeps the unit of a `/tmp` in memory aside before version 13.
fn enable_tmp(root: &Path) -> Result<(), InitError> {
    let aside = "usr/share/systemd/tmp.mount";
    if !root.join(UNITS).join("tmp.mount").exists() && root.join(aside).exists() {
        link(&root.join("etc/systemd/system/tmp.mount"), &format!("/{aside}"))?;
    }
    let unit = format!("/{UNITS}/tmp.mount");
    link(&root.join(UNITS).join("local-fs.target.wants/tmp.mount"), &unit)
}

fn copy_self(target: &Path) -> Result<(), InitError> {
    // The kernel says where it is in /proc alone.
    let this = env::current_exe().or_else(|error| started_as().ok_or(InitError::NoSelf(error)))?;
    let bytes = fs::read(&this).map_err(|source| failed("read", &this, source))?;
    write(target, &bytes, 0o755)
}

/// The path by which this program was started, or where the shell found its name.
fn started_as() -> Option<PathBuf> {
    let name = PathBuf::from(env::args_os().next()?);
    if name.components().count() > 1 {
        return name.exists().then_some(name);
    }
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

fn require(root: &Path, paths: &[&str], what: &'static str, package: &'static str) -> Result<(), InitError> {
    if brings(root, paths) { Ok(()) } else { Err(InitError::Missing { what, package }) }
}

fn brings(root: &Path, paths: &[&str]) -> bool {
    paths.iter().any(|path| root.join(path.trim_start_matches('/')).exists())
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), InitError> {
    let new = path.with_extension("evenkeel-new");
    path.parent().map_or(Ok(()), make_folder)?;
    fs::write(&new, content).map_err(|source| failed("write", path, source))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|source| failed("write", path, source))
}

fn link(path: &Path, target: &str) -> Result<(), InitError> {
    path.parent().map_or(Ok(()), make_folder)?;
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("replace", path, source)),
        _ => symlink(target, path).map_err(|source| failed("link", path, source)),
    }
}

fn make_folder(path: &Path) -> Result<(), InitError> {
    fs::create_dir_all(path).map_err(|source| failed("make folder", path, source))
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ": run this as root while the image is built",
        io::ErrorKind::ReadOnlyFilesystem => ": run this while the image is built, and can be written",
        _ => "",
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> InitError {
    InitError::Io { operation, path: path.to_owned(), source }
}
