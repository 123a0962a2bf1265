//! The command line, as people and scripts use it: what it writes, what it prints, and how it ends.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    image::{KERNEL, LOADER, Recipe, tar},
    registry::Registry,
    shell::Shell,
};

/// Bytes before it on each disk.
const BOOT_PARTITION: u64 = 1 << 20;

/// A file out of a slot, through the kernel, found by nothing but what `slots` says.
fn read_through_kernel(disk: &Path, slot: &Value, path: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let options = format!("ro,loop,offset={},sizelimit={}", slot["offset"], slot["length"]);
    let mounted =
        Command::new("mount").args(["-t", "erofs", "-o", &options]).arg(disk).arg(folder.path()).status();
    assert!(mounted.unwrap().success());
    let content = fs::read_to_string(folder.path().join(path));
    assert!(Command::new("umount").arg(folder.path()).status().unwrap().success());
    content.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_file_to_a_second_slot_on_trial() {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    let config = shell.file("config.yaml", "#cloud-config\nhostname: node-7\n");
    let (code, _, err) = shell.install(&image, &["--cloud-config", &config]);
    assert_eq!(code, 0, "{err}");
    let a = shell.slot("a");
    for (key, expected) in [("state", "complete"), ("image", &image), ("version", "7.1")] {
        assert_eq!(a[key], expected, "{a}");
    }
    assert_eq!((&a["bootable"], &a["default"], &a["triesLeft"]), (&true.into(), &true.into(), &Value::Null));
    assert!(read_through_kernel(&shell.disk, &a, "usr/lib/os-release").contains("VERSION_ID=\"7.1\""));

    let newer = Recipe::with(tar(&[("etc/top", b"newer")])).build();
    let newer_name = registry.push(&newer, "os:2").await;
    let (code, out, err) =
        shell.agent(&["stage", &newer_name, "--plain-http", "--slot", "b", "--output", "json"]);
    assert_eq!(code, 0, "{err}");
    let account: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&account["slot"], &account["digest"]), (&"b".into(), &newer.manifest.digest.into()));
    let b = shell.slot("b");
    assert_eq!((&b["state"], &b["bootable"]), (&"complete".into(), &false.into()));
    assert_eq!(read_through_kernel(&shell.disk, &b, "etc/top"), "newer");

    assert_eq!(shell.agent(&["activate", "--slot", "b"]).0, 0);
    let b = shell.slot("b");
    assert_eq!((&b["bootable"], &b["default"], &b["triesLeft"]), (&true.into(), &true.into(), &3.into()));
    assert_eq!(shell.slot("a")["bootable"], true);
}

/// A file as a device, in whose partition table the kernel does not look. Needs root.
struct Unread(PathBuf);

impl Unread {
    fn attach(file: &Path) -> Self {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(String::from_utf8(made.stdout).unwrap().trim().into())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Partitions that were added one by one stay with the device's number otherwise.
        let _ = Command::new("partx").arg("--delete").arg(&self.0).output();
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_partitions_the_kernel_did_not_look_for_is_installed_again() {
    let (mut shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    let (code, _, err) = shell.install(&image, &[]);
    assert_eq!(code, 0, "{err}");
    let device = Unread::attach(&shell.disk);
    shell.disk.clone_from(&device.0);
    let (code, _, err) = shell.install(&image, &[]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(shell.slot("a")["default"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_with_another_loader_is_refused_before_it_costs_a_slot() {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    assert_eq!(shell.install(&image, &[]).0, 0);
    let before = fs::read(&shell.disk).unwrap();
    let (code, _, err) = shell.install(&image, &["--bootloader", "grub"]);
    assert!(code == 3 && err.contains("boots by systemd-boot"), "{code} {err}");
    assert!(fs::read(&shell.disk).unwrap() == before);
}

/// What fsck.fat says of the boot partition, and whether nothing is wrong with it.
fn judged(shell: &Shell) -> (bool, String) {
    let copy = shell.folder.path().join("esp.img");
    let mut content = vec![0; 512 << 20];
    File::open(&shell.disk).unwrap().read_exact_at(&mut content, BOOT_PARTITION).unwrap();
    fs::write(&copy, content).unwrap();
    let said = Command::new("fsck.fat").arg("-n").arg(&copy).output().unwrap();
    (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_leaves_nothing_of_one_that_was_cut_off() {
    const LAST_OF_A_FILE: [u8; 4] = 0x0FFF_FFFF_u32.to_le_bytes();
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    assert_eq!(shell.install(&image, &[]).0, 0);
    // Clusters of files that have no name yet, as the power left them in each copy of the table.
    let disk = File::options().read(true).write(true).open(&shell.disk).unwrap();
    let (mut reserved, mut length) = ([0; 2], [0; 4]);
    disk.read_exact_at(&mut reserved, BOOT_PARTITION + 14).unwrap();
    disk.read_exact_at(&mut length, BOOT_PARTITION + 36).unwrap();
    let first = BOOT_PARTITION + u64::from(u16::from_le_bytes(reserved)) * 512;
    let second = first + u64::from(u32::from_le_bytes(length)) * 512;
    disk.write_all_at(&LAST_OF_A_FILE, first + 4 * 100_000).unwrap();
    disk.write_all_at(&LAST_OF_A_FILE, second + 4 * 100_001).unwrap();
    assert!(!judged(&shell).0);
    let (code, _, err) = shell.install(&image, &[]);
    assert_eq!(code, 0, "{err}");
    let (clean, said) = judged(&shell);
    assert!(clean, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_named_on_the_command_line_or_in_containerds_files() {
    let (shell, registry) = (Shell::new(), Registry::start());
    registry.push(&Recipe::default().build(), "os:1").await;
    registry.push(&Recipe::with(tar(&[("etc/top", b"newer")])).build(), "os:2").await;
    let url = format!("http://{}", registry.address());
    let mirror = format!("registry.invalid={url}");
    let (code, _, err) =
        shell.install("registry.invalid/os:1", &["--mirror", "*=http://127.0.0.1:1", "--mirror", &mirror]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(shell.slot("a")["image"], "registry.invalid/os:1");
    let folder = tempfile::tempdir().unwrap();
    let (default, path) = (folder.path().join("_default"), folder.path().to_str().unwrap());
    fs::create_dir(&default).unwrap();
    let stage = ["stage", "registry.invalid/os:2", "--slot", "b", "--hosts-dir", path];
    for (text, expected, word) in [
        (format!("[host.\"{url}\"]\nskip_verify = true"), 3, "skip_verify"),
        (format!("[host.\"{url}\"]"), 0, ""),
    ] {
        fs::write(default.join("hosts.toml"), text).unwrap();
        let (code, _, err) = shell.agent(&stage);
        assert!(code == expected && err.contains(word), "{code} {err}");
    }
    assert_eq!(shell.slot("b")["image"], "registry.invalid/os:2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_installed_costs_no_disk() {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    let config = shell.file("config.yaml", "#cloud-config\npackages: []\n");
    let (code, _, err) = shell.install(&image, &["--cloud-config", &config]);
    assert!(code == 3 && err.contains("packages") && !shell.disk.exists(), "{code} {err}");
    let (code, _, err) = shell.install(&registry.reference("os:2"), &[]);
    assert!(code == 4 && err.contains("os:2") && !shell.disk.exists(), "{code} {err}");
    let (code, _, err) = shell.install("Not An Image", &[]);
    assert!(code == 3 && err.contains("Not An Image") && !shell.disk.exists(), "{code} {err}");

    fs::File::create(&shell.disk).unwrap().set_len(200 << 20).unwrap();
    let sgdisk = Command::new("sgdisk").args(["-n", "1:0:0", "-c", "1:precious"]).arg(&shell.disk).output();
    assert!(sgdisk.unwrap().status.success());
    let before = fs::read(&shell.disk).unwrap();
    let (code, _, err) = shell.install(&image, &[]);
    assert!(code == 3 && err.contains("partitions that are not Evenkeel's"), "{code} {err}");
    assert!(fs::read(&shell.disk).unwrap() == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_image_and_the_slot_in_use_end_with_the_code_for_it() {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    assert_eq!(shell.install(&image, &[]).0, 0);
    let (code, _, err) = shell.agent(&["stage", &image, "--plain-http", "--slot", "a"]);
    assert!(code == 3 && err.contains("slot a is the one in use"), "{code} {err}");
    let layers = vec![tar(&[(LOADER, b"MZ"), (KERNEL, b"kernel")])];
    let half = registry.push(&Recipe { layers, ..Recipe::default() }.build(), "os:half").await;
    let (code, _, err) = shell.agent(&["stage", &half, "--plain-http"]);
    assert!(code == 3 && err.contains("no initrd for its kernel 6.1.0-1"), "{code} {err}");
    let b = shell.slot("b");
    assert_eq!((&b["state"], &b["bootable"]), (&"empty".into(), &false.into()));
}
