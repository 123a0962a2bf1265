//! Bad input: each is named with its remedy, and leaves the old system serving and the slot empty.

use std::{fs, process::Command};

use evenkeel_node_agent::{disk::Disk, esp, slots::SlotState};
use serde_json::json;

use crate::{
    image::{INITRD, KERNEL, LOADER, Recipe, digest, index, noise, tar},
    machine::Machine,
    registry::Registry,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there() {
    let machine = Machine::with_old_system().await;
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let image = format!("127.0.0.1:{port}/os:1");
    let registry = format!("127.0.0.1:{port}");
    machine
        .refused_untouched(&image, "RegistryUnreachable", true, &[&registry, "over http", "refused"])
        .await;
    assert_eq!(machine.slot("b").state, SlotState::Complete, "nothing may be lost to an outage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_speak_tls() {
    let mut machine = Machine::with_old_system().await;
    machine.options.pull.plain_http = false;
    let registry = Registry::start();
    let name = registry.push(&Recipe::default().build(), "os:1").await;
    let address = registry.address();
    machine
        .refused_untouched(&name, "RegistryUnreachable", true, &[address, "over https", "plain HTTP"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tag_repository_and_digest() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    registry.push(&Recipe::default().build(), "os:1").await;
    for name in ["os:nope", "so:1", &format!("os@{}", digest(b"nothing"))] {
        let name = registry.reference(name);
        machine.refused_untouched(&name, "ImageNotFound", false, &[&name, "push the image"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_architecture() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let image = Recipe { architecture: other, ..Recipe::default() }.build();
    let found = format!("linux/{other}");
    let single = registry.push(&image, "os:single").await;
    machine.refused_untouched(&single, "WrongArchitecture", false, &[&single, &found, "build it for"]).await;
    let many = registry.push_manifest(&index(&[(&image, other), (&image, "s390x")]), "os:many").await;
    machine.refused_untouched(&many, "WrongArchitecture", false, &[&found, "linux/s390x"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_kernel_and_one_without_initrd() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let layers = vec![tar(&[(LOADER, b"MZ"), ("etc/x", b"x")])];
    let name = registry.push(&Recipe { layers, ..Recipe::default() }.build(), "os:none").await;
    machine.refuses(&name, "NoKernel", false, &[&name, "/usr/lib/modules", "kernel package"]).await;
    let layers = vec![tar(&[(LOADER, b"MZ"), (KERNEL, b"kernel")])];
    let name = registry.push(&Recipe { layers, ..Recipe::default() }.build(), "os:half").await;
    machine.refuses(&name, "NoInitrd", false, &[&name, "6.1.0-1", "evenkeel-agent init"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_larger_than_the_slot() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let image = Recipe::with(tar(&[("big", &noise(40 << 20, 3))])).build();
    let name = registry.push(&image, "os:big").await;
    let words = ["slot b of 33554432 bytes", "--slot-size"];
    machine.refuses(&name, "ImageTooLarge", false, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_the_registry_damaged() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let image = Recipe::with(tar(&[("data", &noise(1 << 20, 4))])).build();
    let name = registry.push(&image, "os:1").await;
    let layer = &image.layers[2].digest;
    let file = registry.blob_file(layer);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    machine.refuses(&name, "DigestMismatch", false, &[layer, "push the image again"]).await;
    bytes.truncate(middle);
    fs::write(&file, &bytes).unwrap();
    machine
        .refuses(&name, "TruncatedLayer", false, &[layer, &middle.to_string(), "push the image again"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_unpacks_to_something_else_than_promised() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let mut recipe = Recipe::default();
    let promised = digest(b"promised");
    recipe.diff_ids = Some(vec![digest(&recipe.layers[0]), promised.clone()]);
    let name = registry.push(&recipe.build(), "os:1").await;
    machine.refuses(&name, "DiffIdMismatch", false, &[&name, &promised, &digest(&recipe.layers[1])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_no_tar() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let image = Recipe::with(noise(100_000, 5)).build();
    let name = registry.push(&image, "os:1").await;
    machine.refuses(&name, "MalformedLayer", false, &[&image.layers[2].digest, "build and push"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_leads_out_of_the_image() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"../../bad");
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let mut layer = tar::Builder::new(Vec::new());
    layer.append(&header, &[][..]).unwrap();
    let image = Recipe::with(layer.into_inner().unwrap()).build();
    let name = registry.push(&image, "os:1").await;
    let words = [&image.layers[2].digest, &name, "entry ../../bad", "has `..` in it"];
    machine.refuses(&name, "MalformedLayer", false, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_partition_that_is_full() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let partition = esp::open(&machine.disk).unwrap();
    let room = partition.free().unwrap() - (2 << 20);
    partition.write("somebody-elses.bin", &mut std::io::Read::take(std::io::repeat(7), room)).unwrap();
    let before = partition.list("evenkeel").unwrap();
    let (kernel, initrd) = (noise(1 << 20, 6), noise(2 << 20, 7));
    let image = Recipe::with(tar(&[(KERNEL, &kernel), (INITRD, &initrd)])).build();
    let name = registry.push(&image, "os:1").await;
    machine.refuses(&name, "EspFull", false, &["boot partition", "bytes free", "remove what is not"]).await;
    assert_eq!(partition.list("evenkeel").unwrap(), before, "what the old system boots from stays");
    partition.remove("somebody-elses.bin").unwrap();
    machine.stage(&name).await.unwrap();
}

/// A file system in memory, with so much room and no more; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success());
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_more() {
    let mut machine = Machine::with_old_system().await;
    let small = SmallDisk::new("48M");
    let path = small.0.path().join("disk.img");
    let copied = Command::new("cp").arg("--sparse=always").arg(machine.disk.path()).arg(&path).status();
    assert!(copied.unwrap().success());
    machine.disk = Disk::open(&path).unwrap();
    let registry = Registry::start();
    // The disk file has holes, and nothing is left to fill them from.
    let full = fs::write(small.0.path().join("filler"), vec![1; 48 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let image = Recipe::with(tar(&[("data", &noise(24 << 20, 8))])).build();
    let name = registry.push(&image, "os:1").await;
    machine.refuses(&name, "DiskFailed", true, &["slot b", "make room", "No space left"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_labels_cannot_be_kept_costs_no_slot() {
    let machine = Machine::with_old_system().await;
    let registry = Registry::start();
    let labels = json!({ "org.example.build": "x".repeat(70_000) });
    let name = registry.push(&Recipe { labels, ..Recipe::default() }.build(), "os:labels").await;
    machine.refused_untouched(&name, "ImageNotSupported", false, &["too many layers or labels"]).await;
    let b = machine.slot("b");
    assert!(b.state == SlotState::Complete && b.bootable, "{b:?}");
}
