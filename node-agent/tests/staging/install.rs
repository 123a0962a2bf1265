//! Installation on a disk that boots already: what it boots stays as it is until another slot is complete.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use evenkeel_node_agent::{disk::Disk, esp};
use serde_json::Value;

use crate::{
    image::{INITRD, KERNEL, LOADER, Recipe, tar},
    registry::Registry,
    shell::Shell,
};

const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
/// Where in a slot every image has something.
const IN_AN_IMAGE: u64 = 64 << 10;

/// A disk that boots from slot `a`, and the image there.
async fn installed(registry: &Registry) -> (Shell, String) {
    let shell = Shell::new();
    let image = registry.push(&Recipe::default().build(), "os:1").await;
    let (code, _, err) = shell.install(&image, &[]);
    assert_eq!(code, 0, "{err}");
    (shell, image)
}

async fn push_other(registry: &Registry, name: &str) -> String {
    registry.push(&Recipe::with(tar(&[("etc/top", name.as_bytes())])).build(), name).await
}

/// State, whether it boots at all, and whether it boots next.
fn how(shell: &Shell, slot: &str) -> (String, bool, bool) {
    let slot = shell.slot(slot);
    let is = |key: &str| slot[key].as_bool().unwrap();
    assert_eq!(slot["triesLeft"], Value::Null, "{slot}");
    (slot["state"].as_str().unwrap().to_owned(), is("bootable"), is("default"))
}

fn boots(state: &str, next: bool) -> (String, bool, bool) {
    (state.to_owned(), true, next)
}

/// Changes a byte of the image in a slot.
fn spoil(shell: &Shell, slot: &str) {
    let at = shell.slot(slot)["offset"].as_u64().unwrap() + IN_AN_IMAGE;
    let disk = File::options().read(true).write(true).open(&shell.disk).unwrap();
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at).unwrap();
    disk.write_all_at(&[!byte[0]], at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_installation_leaves_the_slot_that_booted_before_it() {
    let registry = Registry::start();
    let (shell, first) = installed(&registry).await;
    let old = shell.slot("a");
    let second = push_other(&registry, "os:2").await;
    let (code, _, err) = shell.install(&second, &[]);
    assert!(code == 0 && err.contains("from slot b"), "{code} {err}");
    assert_eq!((how(&shell, "a"), how(&shell, "b")), (boots("complete", false), boots("complete", true)));
    let now = shell.slot("a");
    assert_eq!((&now["image"], &now["writtenAt"]), (&first.into(), &old["writtenAt"]));
    assert_eq!(shell.agent(&["verify"]).0, 0);

    let third = push_other(&registry, "os:3").await;
    assert_eq!(shell.install(&third, &[]).0, 0);
    assert_eq!((how(&shell, "a"), how(&shell, "b")), (boots("complete", true), boots("complete", false)));
    assert_eq!((&shell.slot("a")["image"], &shell.slot("b")["image"]), (&third.into(), &second.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_refused_costs_nothing_that_boots() {
    let registry = Registry::start();
    let (shell, _) = installed(&registry).await;
    let config = shell.file("config.yaml", "#cloud-config\nhostname: node-8\n");
    let no_initrd = Recipe { layers: vec![tar(&[(LOADER, b"MZ"), (KERNEL, b"k")])], ..Recipe::default() };
    let no_loader = Recipe { layers: vec![tar(&[(KERNEL, b"k"), (INITRD, b"i")])], ..Recipe::default() };
    let right = Recipe::with(tar(&[("etc/top", b"wrong")]));
    let wrong = Some(vec![format!("sha256:{}", "0".repeat(64)); right.layers.len()]);
    let wrong = Recipe { diff_ids: wrong, ..right };
    let lost = Recipe::with(tar(&[("etc/top", b"lost")])).build();
    for (name, image, word) in [
        ("no-initrd", no_initrd.build(), "no initrd"),
        ("no-loader", no_loader.build(), "systemd-boot"),
        ("wrong", wrong.build(), "the image's configuration says"),
        ("lost", lost.clone(), "push the image"),
    ] {
        let image = registry.push(&image, &format!("os:{name}")).await;
        if name == "lost" {
            fs::remove_file(registry.blob_file(&lost.layers.last().unwrap().digest)).unwrap();
        }
        let oem = oem(&shell);
        let (code, _, err) = shell.install(&image, &["--cloud-config", &config]);
        assert!(code != 0 && err.contains(word), "{name}: {code} {err}");
        assert_eq!(how(&shell, "a"), boots("complete", true), "{name}");
        assert_eq!(shell.agent(&["verify", "--slot", "a"]).0, 0, "{name}");
        assert!(oem == self::oem(&shell), "{name}: the machine's cloud-config is another one");
    }
}

/// The bytes before the recovery slot, but for the boot partition.
fn oem(shell: &Shell) -> Vec<u8> {
    let end = shell.slot("recovery")["offset"].as_u64().unwrap();
    let begin = (1 << 20) + (512 << 20);
    let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
    File::open(&shell.disk).unwrap().read_exact_at(&mut bytes, begin).unwrap();
    bytes
}

/// Where the registry has lost a layer, that is known before anything is given up.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_one_of_its_layers_costs_no_slot_and_no_disk() {
    let registry = Registry::start();
    let (shell, _) = installed(&registry).await;
    let second = push_other(&registry, "os:2").await;
    assert_eq!(shell.install(&second, &[]).0, 0);
    let lost = Recipe::with(tar(&[("etc/top", b"lost")])).build();
    let digest = lost.layers.last().unwrap().digest.clone();
    let name = registry.push(&lost, "os:lost").await;
    fs::remove_file(registry.blob_file(&digest)).unwrap();
    for command in [&["install", &name, "--plain-http"][..], &["stage", &name, "--plain-http"]] {
        let before = fs::read(&shell.disk).unwrap();
        let (code, _, err) = shell.agent(command);
        assert!(code == 4 && err.contains(&digest), "{command:?}: {code} {err}");
        assert!(fs::read(&shell.disk).unwrap() == before, "{command:?}");
    }
    let before = fs::read(&shell.disk).unwrap();
    let (code, _, err) = shell.install(&name, &["--force"]);
    assert!(code == 4 && err.contains(&digest), "{code} {err}");
    assert!(fs::read(&shell.disk).unwrap() == before);
    // What a slot has the registry need not have.
    let third = push_other(&registry, "os:3").await;
    fs::remove_file(registry.blob_file(&Recipe::default().build().layers[0].digest)).unwrap();
    assert_eq!(shell.install(&third, &[]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_other_slots_are_pinned_nothing_is_written() {
    let registry = Registry::start();
    let (shell, _) = installed(&registry).await;
    let second = push_other(&registry, "os:2").await;
    assert_eq!(shell.agent(&["pin", "b"]).0, 0);
    let before = fs::read(&shell.disk).unwrap();
    let config = shell.file("config.yaml", "#cloud-config\nhostname: node-8\n");
    let (code, _, err) = shell.install(&second, &["--cloud-config", &config]);
    assert!(code == 3 && err.contains("pinned (b)"), "{code} {err}");
    assert!(fs::read(&shell.disk).unwrap() == before);
    assert_eq!(shell.agent(&["unpin", "b"]).0, 0);
    assert_eq!(shell.install(&second, &[]).0, 0);
    assert_eq!(how(&shell, "b"), boots("complete", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_that_the_disk_boots_is_not_written_again() {
    let registry = Registry::start();
    let (shell, image) = installed(&registry).await;
    let before = fs::read(&shell.disk).unwrap();
    let (code, _, err) = shell.install(&image, &[]);
    assert!(code == 0 && err.contains("slot a holds the image already"), "{code} {err}");
    assert!(fs::read(&shell.disk).unwrap() == before);
    // Unless it is damaged: then it is what there is until another slot is complete, and boots behind that.
    spoil(&shell, "a");
    let (code, _, err) = shell.install(&image, &[]);
    assert!(code == 0 && err.contains("another slot"), "{code} {err}");
    assert_eq!((how(&shell, "a"), how(&shell, "b")), (boots("complete", false), boots("complete", true)));
    assert_eq!(shell.agent(&["verify", "--slot", "b"]).0, 0);
}

/// What a kept slot is to hold is not known any more, and the one that was kept before it is good.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_slot_that_holds_nothing_is_what_is_written() {
    let registry = Registry::start();
    let (shell, _) = installed(&registry).await;
    let second = push_other(&registry, "os:2").await;
    assert_eq!(shell.install(&second, &[]).0, 0);
    // The record lies at the slot's end.
    let slot = shell.slot("b");
    let end = slot["offset"].as_u64().unwrap() + slot["length"].as_u64().unwrap();
    let disk = File::options().write(true).open(&shell.disk).unwrap();
    disk.write_all_at(&vec![0; 1 << 20], end - (1 << 20)).unwrap();
    assert_eq!(how(&shell, "b").0, "empty");
    let third = push_other(&registry, "os:3").await;
    assert_eq!(shell.install(&third, &[]).0, 0);
    assert_eq!((how(&shell, "a"), how(&shell, "b")), (boots("complete", false), boots("complete", true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_of_the_loader_the_disks_own_stays() {
    let (shell, registry) = (Shell::new(), Registry::start());
    let image = registry.push(&Recipe::with(tar(&[(GRUB, b"MZ")])).build(), "os:1").await;
    assert_eq!(shell.install(&image, &["--bootloader", "grub"]).0, 0);
    let second = registry.push(&Recipe::with(tar(&[(GRUB, b"MZ new")])).build(), "os:2").await;
    let (code, _, err) = shell.install(&second, &[]);
    assert!(code == 0 && err.contains("machines with BIOS"), "{code} {err}");
    assert_eq!((how(&shell, "a"), how(&shell, "b")), (boots("complete", false), boots("complete", true)));
    let (mut loader, esp) = (Vec::new(), esp::open(&Disk::open(&shell.disk).unwrap()).unwrap());
    assert!(esp.read("EFI/BOOT/BOOTX64.EFI", &mut loader).unwrap());
    let files = esp.list("EFI/BOOT").unwrap();
    assert_eq!((loader.as_slice(), files.len()), (&b"MZ new"[..], 1), "{files:?}");
    let (code, _, err) = shell.install(&second, &["--bootloader", "systemd-boot"]);
    assert!(code == 3 && err.contains("boots by GRUB"), "{code} {err}");
    // One that does not bring that loader costs nothing.
    let third = push_other(&registry, "os:3").await;
    let (code, _, err) = shell.install(&third, &[]);
    assert!(code == 3 && err.contains("GRUB must bring it"), "{code} {err}");
    assert_eq!(how(&shell, "b"), boots("complete", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_a_disk_does_not_have_are_refused() {
    let registry = Registry::start();
    let (shell, image) = installed(&registry).await;
    let before = fs::read(&shell.disk).unwrap();
    for (option, word) in [
        (["--slots", "3"], "--slots (it has 2)"),
        (["--slot-size", "64MiB"], "--slot-size (its slots have 32 MiB)"),
        (["--size", "999MiB"], "--size (its partitions end"),
    ] {
        let (code, _, err) = shell.agent(&[&["install", &image, "--plain-http"][..], &option].concat());
        assert!(code == 3 && err.contains(word) && err.contains("--force"), "{code} {err}");
        assert!(fs::read(&shell.disk).unwrap() == before);
    }
    assert_eq!(shell.install(&image, &["--slots", "2"]).0, 0);
    // One that is made smaller than its device keeps to that.
    File::options().write(true).open(&shell.disk).unwrap().set_len(1100 << 20).unwrap();
    assert_eq!(shell.install(&image, &[]).0, 0);
}

/// What a look at a slot's bytes has found is remembered, and holds for what a person asks for too.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_slot_that_is_known_to_be_damaged_is_staged_into_before_the_good_one() {
    let registry = Registry::start();
    let (shell, _) = installed(&registry).await;
    let second = push_other(&registry, "os:2").await;
    assert_eq!(shell.install(&second, &[]).0, 0);
    spoil(&shell, "b");
    let state = ["--state-dir", shell.folder.path().to_str().unwrap()];
    assert_eq!(shell.agent(&[&["verify"][..], &state].concat()).0, 6);
    let third = push_other(&registry, "os:3").await;
    let (code, out, err) = shell.agent(&[&["stage", &third, "--plain-http"][..], &state].concat());
    assert!(code == 0 && out.starts_with("slot b holds"), "{code} {out} {err}");
    assert_eq!(how(&shell, "a"), boots("complete", true));
}
