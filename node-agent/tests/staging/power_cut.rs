//! The power goes: after any write, with any part of what was not flushed, and again while the machine recovers. Each
//! disk that may be left must boot one complete slot, keep what the journal has said, and come to an end by itself.
//!
//! Not shown here: the kernel's vfat driver, whose writes are its own, and which is used only where somebody else has
//! the boot partition mounted; the journal's file system, which is taken to keep a document whole (it is written under
//! another name, flushed and renamed).
//!
//! `EVENKEEL_POWER_CUTS=n` looks at n times as many.

mod boot_partition;
mod cuts;
mod finished_layer;
mod firmware;
mod grub;
mod grub_choice;
mod installation;
mod node;
mod promises;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::Arc,
};

use evenkeel_crds::node_plan::{Order, Revert, Target};
use evenkeel_node_agent::{boot::Loader, disk::Disk, install};
use evenkeel_node_agent_core::{
    digest::hex,
    journal::{Journal, Step},
    machine::Orders,
};
use sha2::{Digest as _, Sha256};

use crate::{
    image::{INITRD, KERNEL, LOADER, Recipe, noise, tar},
    machine::Machine,
    recorder::{Op, Recorder, Sectors},
    registry::Registry,
};
use cuts::{Cut, Dice, Story};
use node::{CAUSE, Known, Node};
use promises::{Images, hold};

/// What the cluster says beside the image.
pub const CLOUD_CONFIG: &str = "#cloud-config\nhostname: here\n";
/// Where images bring GRUB.
const GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
/// The slots that updates write.
const UPDATE_SLOTS: [&str; 2] = ["a", "b"];
/// Random choices of sectors after each write.
const RANDOM: u64 = 3;
/// Of so many cuts one is followed to the end of the recovery.
const FOLLOW_ONE_OF: u64 = 4;
/// Of so many recoveries one is cut again.
const CUT_AGAIN_ONE_OF: u64 = 12;

fn times() -> u64 {
    std::env::var("EVENKEEL_POWER_CUTS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Machines that run an old system, and images to update them to.
struct World {
    machine: Machine,
    _registry: Registry,
    /// Digest-pinned references.
    references: Vec<String>,
    images: Images,
}

impl World {
    async fn new(loader: Loader) -> Self {
        let registry = Registry::start();
        let machine = Machine::empty();
        let (mut references, mut images) = (Vec::new(), Images::new());
        for number in 0..3_u64 {
            // The last has the kernel of the first, so that there is nothing to do on the boot partition for it.
            let kernel = noise(5_000, number % 2 + 10);
            let initrd = noise(9_000, number % 2 + 20);
            let own = noise(12_000 + usize::try_from(number).unwrap() * 5000, number + 30);
            // All have the first layer, and so a slot keeps it; two have the second, and one slot gives it to the
            // other.
            let layers = vec![
                tar(&[(LOADER, b"MZ"), (GRUB, b"MZ"), ("usr/lib/base", &noise(9_000, 40))]),
                tar(&[(KERNEL, &kernel), (INITRD, &initrd)]),
                tar(&[("etc/own", &own)]),
            ];
            let image = Recipe { layers, ..Recipe::default() }.build();
            registry.push(&image, &format!("os:{number}")).await;
            let pinned = format!("{}@{}", registry.reference("os"), image.manifest.digest);
            let staged = machine.stage_into(&pinned, "a", &Arc::default()).await.unwrap();
            images.insert(image.manifest.digest.clone(), staged.record.root_hash.clone());
            references.push(pinned);
        }
        let staged = machine.stage_into(&references[0], "a", &Arc::default()).await.unwrap();
        let slot = machine.disk.slot("a").unwrap();
        install::make_bootable_with(&machine.disk, &slot, &staged.record, loader).unwrap();
        Self { machine, _registry: registry, references, images }
    }

    /// The image of the order's plan, with the cluster's cloud-config.
    fn configured(&self, plan: &str, image: usize, target: Target) -> Orders {
        let mut orders = self.orders(plan, image, target);
        orders.order.cloud_config = Some(hex(&Sha256::digest(CLOUD_CONFIG)));
        orders
    }

    fn orders(&self, plan: &str, image: usize, target: Target) -> Orders {
        let revert = Revert { cause: CAUSE, message: "enough".into() };
        Orders {
            order: Order {
                plan_id: plan.into(),
                image: self.references[image].clone(),
                cloud_config: None,
                target,
            },
            not_after: Some("2100-01-01T00:00:00Z".parse().unwrap()),
            revert: (target == Target::Reverted).then_some(revert),
            live: false,
            live_turn: false,
        }
    }

    /// A machine that runs the old system, and has no order.
    fn old(&self) -> (Arc<File>, Known, Node) {
        let file = Arc::new(File::open(self.machine.disk.path()).unwrap());
        let known = Known { journal: Journal::default(), orders: None, running: "a".into(), boots: 0 };
        let node = self.switch_on(file.clone(), Sectors::new(), &known).unwrap();
        (file, known, node)
    }

    fn switch_on(&self, file: Arc<File>, sectors: Sectors, known: &Known) -> Result<Node, String> {
        Node::power_on(Recorder::new(file, sectors), known.clone(), &self.machine.options)
    }

    /// Updates, kept and not, and ways back: everything that a machine does to its disk.
    async fn story(&self) -> Story<Known> {
        let (file, known, mut node) = self.old();
        for (orders, slot, step) in [
            (self.orders("1", 1, Target::Committed), "b", "committed"),
            (self.orders("1", 1, Target::Reverted), "a", "rolledBack"),
            (self.orders("2", 2, Target::Committed), "b", "committed"),
            (self.orders("3", 1, Target::Booted), "a", "trial"),
            (self.orders("3", 1, Target::Reverted), "b", "rolledBack"),
            // The slot has that image already.
            (self.configured("4", 1, Target::Committed), "a", "committed"),
        ] {
            node.follow(Some(&orders)).await.unwrap();
            let stands =
                serde_json::to_value(&node.known.journal).unwrap()["attempt"]["step"]["name"].clone();
            assert_eq!((node.known.running.as_str(), stands.as_str()), (slot, Some(step)));
        }
        Story { file, before: Sectors::new(), known, ops: node.recorder.take_log() }
    }

    /// The machine is switched on again, and left alone.
    async fn recover(&self, story: &Story<Known>, cut: &Cut<Known>) -> Result<(Node, Ending), String> {
        let mut node = self.switch_on(story.file.clone(), cut.sectors.clone(), &cut.known)?;
        node.follow(cut.known.orders.as_ref()).await?;
        hold(&node.recorder, &node.known, &self.images)?;
        let ending = ending(&node.known)?;
        Ok((node, ending))
    }
}

/// How a machine that was left alone stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    NothingOrdered,
    OnTrial,
    Kept,
    WentBack,
    /// Without an order to do so.
    GaveUp,
}

fn ending(known: &Known) -> Result<Ending, String> {
    let (Some(orders), Some(attempt)) = (&known.orders, &known.journal.attempt) else {
        return Ok(Ending::NothingOrdered);
    };
    match (&attempt.step, orders.order.target) {
        (Step::Committed, Target::Committed) => Ok(Ending::Kept),
        (Step::Trial, Target::Booted) => Ok(Ending::OnTrial),
        (Step::RolledBack { .. }, Target::Reverted) => Ok(Ending::WentBack),
        (Step::RolledBack { .. }, _) => Ok(Ending::GaveUp),
        (step, target) => Err(format!("ordered {target:?}, and ended at {step:?}")),
    }
}

/// The slot that runs and the recovery slot are never written.
fn keeps_off(disk: &Disk, story: &Story<Known>) {
    let mut known = &story.known;
    for op in &story.ops {
        match op {
            Op::Note(later) => known = later,
            Op::Flush => {}
            Op::Write(sectors) => {
                for forbidden in ["recovery", known.running.as_str()] {
                    let slot = disk.slot(forbidden).unwrap();
                    let (first, end) = (slot.disk_offset / 512, (slot.disk_offset + slot.length) / 512);
                    let hit = sectors.iter().find(|(number, _)| (first..end).contains(number));
                    assert!(hit.is_none(), "slot {forbidden} was written at sector {hit:?}: {known:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_anywhere_leaves_one_whole_system_and_a_way_on() {
    cut_everywhere(Loader::SystemdBoot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_anywhere_leaves_one_whole_system_and_a_way_on_with_grub() {
    cut_everywhere(Loader::Grub).await;
}

async fn cut_everywhere(loader: Loader) {
    let world = World::new(loader).await;
    let story = world.story().await;
    keeps_off(&world.machine.disk, &story);
    let mut cuts = Vec::new();
    story.cuts(0..story.ops.len(), RANDOM * times(), |cut| cuts.push(cut));
    let (mut endings, mut followed, mut again) = (BTreeMap::new(), 0, 0);
    let (mut kept, mut copied) = (0, 0);
    let mut dice = Dice(7);
    let mut failures = Vec::new();
    for cut in &cuts {
        if let Err(error) = hold(&story.recorder(cut), &cut.known, &world.images) {
            failures.push(format!("cut at {} of {}: {error}", cut.at, story.ops.len()));
            continue;
        }
        if dice.roll(FOLLOW_ONE_OF) >= times() {
            continue;
        }
        followed += 1;
        match world.recover(&story, cut).await {
            Ok((node, ending)) => {
                *endings.entry(ending).or_insert(0) += 1;
                kept += u32::from(node.reused.0 > 0);
                copied += u32::from(node.reused.1 > 0);
                let second = Story {
                    file: story.file.clone(),
                    before: cut.sectors.clone(),
                    known: cut.known.clone(),
                    ops: node.recorder.take_log(),
                };
                keeps_off(&node.disk, &second);
                if dice.roll(CUT_AGAIN_ONE_OF) < times() {
                    again += cut_again(&world, &second, &mut dice, &mut failures).await;
                }
            }
            Err(error) => failures.push(format!("recovery after {} of {}: {error}", cut.at, story.ops.len())),
        }
    }
    println!(
        "{loader:?}: {} writes, flushes and notes; {} disks; {followed} recoveries ({endings:?}; {kept} went on with \
         what lay in the slot, {copied} took layers from the other), {again} disks of cuts in them",
        story.ops.len(),
        cuts.len()
    );
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cuts.len(), failures.join("\n"));
    assert!(cuts.len() > 400 && followed > 80 && again > 40, "too little was looked at");
    assert!(!endings.contains_key(&Ending::GaveUp), "an image was given up because the power went");
    assert!(kept > 5 && copied > 5, "nothing was used again");
}

/// Cuts a recovery; gives the number of disks.
async fn cut_again(world: &World, story: &Story<Known>, dice: &mut Dice, failures: &mut Vec<String>) -> u64 {
    let mut cuts = Vec::new();
    story.cuts(0..story.ops.len(), 1, |cut| cuts.push(cut));
    let mut looked_at = 0;
    cuts.retain(|_| dice.roll(4) == 0);
    for cut in &cuts {
        looked_at += 1;
        let outcome = match hold(&story.recorder(cut), &cut.known, &world.images) {
            Ok(()) if dice.roll(8) == 0 => world.recover(story, cut).await.map(|_| ()),
            other => other,
        };
        if let Err(error) = outcome {
            failures.push(format!("second cut, at {} of {}: {error}", cut.at, story.ops.len()));
        }
    }
    looked_at
}

/// A flush that could be left out would not be worth its time; and if the promises held without it, they would not be
/// looked at well enough. Those of the boot partition are looked at one by one below.
#[tokio::test(flavor = "multi_thread")]
async fn no_flush_of_a_slot_can_be_left_out() {
    let world = World::new(Loader::SystemdBoot).await;
    let story = world.story().await;
    let slots = UPDATE_SLOTS.map(|name| world.machine.disk.slot(name).unwrap());
    let in_a_slot = |flush: &usize| match &story.ops[flush - 1] {
        Op::Write(sectors) => slots
            .iter()
            .any(|slot| (slot.disk_offset..slot.disk_offset + slot.length).contains(&(sectors[0].0 * 512))),
        _ => false,
    };
    let flushes: Vec<usize> = story.flushes().into_iter().filter(in_a_slot).collect();
    // Which of them a disk shows depends on what the slot held before; so each kind must show once.
    let mut kinds: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut noticed = BTreeSet::new();
    for (index, flush) in flushes.iter().enumerate() {
        // A slot is wiped, written, and gets its record; and in the end another record alone.
        let kind = if index == 10 { 2 } else { index % 3 };
        let end = flushes.get(index + 1).copied().unwrap_or(story.ops.len());
        let mutant = story.without(*flush);
        mutant.cuts(*flush..end, 40 * times(), |cut| {
            if let Err(error) = hold(&mutant.recorder(&cut), &cut.known, &world.images) {
                noticed.insert(kind);
                kinds.entry(kind).or_default().push(error);
            }
        });
    }
    assert_eq!(flushes.len(), 11, "three times wiped, written and recorded, and once wiped and recorded");
    assert_eq!(noticed, BTreeSet::from([0, 1, 2]), "{kinds:?}");
}
