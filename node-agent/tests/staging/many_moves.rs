//! One disk, upgraded many times: nothing is left behind, and what happens in between changes nothing of that.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use evenkeel_node_agent::{
    boot::{self, Loader},
    esp, install,
};

use crate::{
    image::{INITRD, KERNEL, LOADER, Recipe, noise, tar},
    machine::Machine,
    registry::Registry,
};

const MOVES: usize = 50;
const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
/// More than a slot of the machine has.
const TOO_MUCH: usize = 40 << 20;

/// Version `number`: each has a kernel of its own, every second one an initrd too, and they grow and shrink.
fn version(number: usize) -> Recipe {
    let seed = u64::try_from(number).unwrap();
    let base = tar(&[(LOADER, b"MZ"), (GRUB, b"MZ"), ("etc/base", b"base")]);
    let (kernel, initrd) = (noise(100_000 + 50_000 * (number % 3), seed), noise(200_000, seed / 2 + 1_000));
    let payload = noise(100_000 * (number % 4), seed);
    let top = tar(&[(KERNEL, &kernel), (INITRD, &initrd), ("usr/payload", &payload)]);
    Recipe { layers: vec![base, top], ..Recipe::default() }
}

/// What may be left behind.
#[derive(Clone, Debug, PartialEq)]
struct Traces {
    /// Files of the boot partition: how many in each folder.
    files: Vec<usize>,
    esp_free: u64,
    slots: Vec<(String, bool)>,
    /// Of this process, on the disk.
    open_files: usize,
    mounts: usize,
    loops: usize,
}

impl Traces {
    fn of(machine: &Machine) -> Self {
        let disk = machine.disk.path();
        let esp = esp::open(&machine.disk).unwrap();
        let folders = ["evenkeel", "evenkeel/grub", "loader/entries", "evenkeel/pins"];
        let files = folders.map(|folder| esp.list(folder).unwrap().len()).to_vec();
        let mut entries: Vec<(String, bool)> = boot::open(&machine.disk)
            .unwrap()
            .entries()
            .unwrap()
            .into_iter()
            .map(|entry| (entry.name.slot, entry.name.tries.is_none()))
            .collect();
        entries.sort();
        let esp_free = esp.free().unwrap();
        drop(esp);
        Self {
            files,
            esp_free,
            slots: entries,
            open_files: open(disk),
            mounts: mounts(disk),
            loops: loops(disk),
        }
    }
}

fn open(disk: &Path) -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    files.filter(|file| fs::read_link(file.path()).is_ok_and(|target| target == disk)).count()
}

fn mounts(disk: &Path) -> usize {
    let folder = disk.parent().unwrap().to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo").unwrap().matches(folder).count()
}

fn loops(disk: &Path) -> usize {
    let devices = fs::read_dir("/sys/class/block").unwrap().flatten();
    let backing = devices.map(|device| fs::read_to_string(device.path().join("loop/backing_file")));
    backing.flatten().filter(|file| Path::new(file.trim()) == disk).count()
}

/// Stages, tries and keeps a version in the slot that is not in use. Gives that slot.
async fn upgrade(machine: &Machine, image: &str, running: &str) -> &'static str {
    let slot = if running == "a" { "b" } else { "a" };
    let staged = machine.stage_into(image, slot, &Arc::default()).await.unwrap();
    let loader = boot::open(&machine.disk).unwrap();
    loader.arm_trial(&machine.disk.slot(slot).unwrap(), &staged.record, 3).unwrap();
    loader.commit(slot).unwrap();
    let now = machine.slot(slot);
    assert!(now.default && now.tries_left.is_none() && now.image.as_deref() == Some(image), "{now:?}");
    let before = machine.slot(running);
    assert!(before.bootable && !before.default, "the way back: {before:?}");
    slot
}

async fn many_moves(loader: Loader) {
    let (machine, registry) = (Machine::empty(), Registry::start());
    let mut images = Vec::new();
    for number in 0..6 {
        images.push(registry.push(&version(number).build(), &format!("os:{number}")).await);
    }
    let too_large = Recipe::with(tar(&[("usr/much", &noise(TOO_MUCH, 7))])).build();
    let too_large = registry.push(&too_large, "os:much").await;
    let first = machine.stage_into(&images[0], "a", &Arc::default()).await.unwrap();
    let a = machine.disk.slot("a").unwrap();
    install::make_bootable_with(&machine.disk, &a, &first.record, loader).unwrap();

    let mut running = "a";
    let (mut seen, mut after_a_round) = (BTreeSet::new(), None);
    for turn in 1..=MOVES {
        // Up, down, and over some: six steps that come back to where they began.
        let number = [1, 2, 5, 3, 4, 0][(turn - 1) % 6];
        if turn % 10 == 5 {
            let error =
                machine.stage_into(&too_large, if running == "a" { "b" } else { "a" }, &Arc::default()).await;
            assert_eq!(error.unwrap_err().plan_error().reason, "ImageTooLarge");
            assert!(machine.slot(running).default, "turn {turn}");
        }
        if turn % 10 == 7 {
            // What a slot holds already is not written again.
            let passive = if running == "a" { "b" } else { "a" };
            machine.stage_into(&images[number], passive, &Arc::default()).await.unwrap();
            let again = machine.stage_into(&images[number], passive, &Arc::default()).await.unwrap();
            assert_eq!((again.cost.bytes_written, again.cost.bytes_downloaded), (0, 0));
        }
        running = upgrade(&machine, &images[number], running).await;
        seen.insert(number);
        if turn % 6 != 0 {
            continue;
        }
        let traces = Traces::of(&machine);
        assert_eq!((traces.open_files, traces.mounts, traces.loops), (0, 0, 0), "turn {turn}");
        // Two kernels, and two initrds where they differ.
        assert!((3..=4).contains(&traces.files[0]) && traces.slots.len() == 2, "turn {turn}: {traces:?}");
        // Twelve moves are two rounds: the same two versions lie in the same two slots.
        if turn % 12 == 0 {
            assert_eq!(after_a_round.get_or_insert_with(|| traces.clone()), &traces, "turn {turn}");
        }
    }
    assert_eq!(seen.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_moves_leave_nothing_behind_with_systemd_boot() {
    many_moves(Loader::SystemdBoot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_moves_leave_nothing_behind_with_grub() {
    many_moves(Loader::Grub).await;
}
