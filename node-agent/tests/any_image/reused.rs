//! Where a layer comes from changes no byte: random images are staged when some of their layers lie in another slot, in
//! the slot itself, in what a power cut left of it, damaged or not, or nowhere.

use std::{fs, fs::File, path::Path, sync::Arc};

use evenkeel_crds::managed_os_image::Pull;
use evenkeel_node_agent::{
    disk::{BlockDevice, Disk, Sizes},
    install,
    stage::{StageRequest, Staged, stage},
};
use evenkeel_registry::RegistryOptions;
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    config,
    cuts::Story,
    image::{Compressed, INITRD, Image, KERNEL, LOADER, Recipe},
    odd_server::{Habits, OddServer},
    oracle::Oracle,
    recorder::{Recorder, Sectors},
    shows,
    stacks::{Form, Layer, stacks},
    tar_bytes::{Content, Item, What, archive},
};

/// Images of one run, each staged four times: some seconds.
const IMAGES: u32 = 10;
const DISK: u64 = 1000 << 20;
const SLOT: u64 = 48 << 20;
/// The first bytes of a slot, in which its data lies for the most part.
const DATA: u64 = 4 << 20;

/// Layers by their place in a pool, base first.
type Pick = Vec<usize>;

#[derive(Clone, Debug)]
struct Case {
    pool: Vec<Layer>,
    compressed: Compressed,
    wanted: Pick,
    /// What the other slot holds.
    other: Option<Pick>,
    own: Own,
    /// Bytes that became other ones, by slot and place.
    damage: Vec<(&'static str, u64)>,
}

/// What the slot held before.
#[derive(Clone, Debug)]
enum Own {
    Nothing,
    Whole(Pick),
    /// Staging of this was cut off, after a part of its writes in 256, in one of several ways.
    Cut(Pick, u8, u8),
}

fn cases() -> impl Strategy<Value = Case> {
    let pick = || vec(0_usize..5, 1..6);
    let own = prop_oneof![
        1 => Just(Own::Nothing),
        2 => pick().prop_map(Own::Whole),
        4 => (pick(), any::<u8>(), any::<u8>()).prop_map(|(pick, at, how)| Own::Cut(pick, at, how)),
    ];
    let compressed = select(vec![Compressed::Not, Compressed::GzipMembers, Compressed::ZstdFrames]);
    let damage = vec((select(vec!["a", "b"]), 4096..DATA), 0..3);
    (stacks(true), compressed, pick(), option::weighted(0.7, pick()), own, damage).prop_map(
        |(pool, compressed, wanted, other, own, damage)| {
            let pool = [pool, vec![boot_layer()]].concat();
            Case { pool, compressed, wanted, other, own, damage }
        },
    )
}

fn boot_layer() -> Layer {
    let file = |(seed, path): (u8, &&str)| {
        Item::new(path.as_bytes(), What::File(Content { length: 9000 + usize::from(seed), seed }))
    };
    let items = (1_u8..).zip(&[KERNEL, INITRD, LOADER]).map(file).collect();
    Layer { items, end: 2, form: Form::Plain }
}

impl Case {
    /// An image with these layers, without those that no valid image has at their place; and what it adds up to.
    fn image(&self, pick: &Pick) -> (Image, Oracle) {
        let (mut layers, mut oracle) = (Vec::new(), Oracle::default());
        let boot = self.pool.len() - 1;
        for number in pick.iter().map(|number| number % self.pool.len()).chain([boot]) {
            let layer = &self.pool[number];
            let mut with = oracle.clone();
            with.begin_layer();
            if layer.items.iter().try_for_each(|item| with.apply(item)).is_ok() {
                oracle = with;
                layers.push(archive(&layer.items, layer.end));
            }
        }
        (Recipe { layers, compressed: self.compressed, ..Recipe::default() }.build(), oracle)
    }
}

impl Case {
    /// Bytes of the layers that the disk does not have: those from the base on that the slot has at their place are
    /// kept, and others come from the other slot. `None` where a cut or damage decides.
    fn missing(&self, wanted: &Image) -> Option<usize> {
        let digests = |pick: &Pick| {
            let layers = self.image(pick).0.layers;
            layers.into_iter().map(|layer| layer.digest).collect::<Vec<_>>()
        };
        let own = match &self.own {
            _ if !self.damage.is_empty() => return None,
            Own::Cut(..) => return None,
            Own::Nothing => Vec::new(),
            Own::Whole(pick) => digests(pick),
        };
        let other = self.other.as_ref().map(digests).unwrap_or_default();
        let kept = wanted.layers.iter().zip(&own).take_while(|(layer, own)| layer.digest == **own).count();
        let behind = wanted.layers[kept..].iter().filter(|layer| !other.contains(&layer.digest));
        Some(behind.map(|layer| layer.bytes.len()).sum())
    }
}

struct World {
    folder: TempDir,
    file: Arc<File>,
    runtime: Runtime,
}

/// A disk in memory.
struct Machine {
    recorder: Arc<Recorder<()>>,
    disk: Disk,
}

impl Machine {
    fn stage(&self, world: &World, server: &OddServer, slot: &str) -> Result<Staged, TestCaseError> {
        let pull = Pull { plain_http: true, ..Pull::default() };
        let request = StageRequest {
            cloud_config: None,
            disk: self.disk.clone(),
            slot: slot.to_owned(),
            image: server.reference(),
            registry: RegistryOptions { pull, ..RegistryOptions::default() },
            trust: None,
            plan_id: None,
        };
        let staged = world.runtime.block_on(stage(&request, &Arc::default()));
        staged.map_err(|error| TestCaseError::fail(format!("{:#}", anyhow::Error::from(error))))
    }

    /// All of the slot that means something: file system and hash tree, and the content index.
    fn bytes(&self, slot: &str, staged: &Staged) -> (Vec<u8>, Vec<u8>) {
        let region = self.disk.slot(slot).unwrap();
        let window = region.open_ro().unwrap();
        let read = |from: u64, to: u64| {
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            window.read_at(from, &mut bytes).unwrap();
            bytes
        };
        // Leaves of the tree, those of these, and so on: less than one block more than this.
        let blocks = staged.record.filesystem_length / 4096;
        let tree = std::iter::successors(Some(blocks.div_ceil(128)), |level| {
            (*level > 1).then(|| level.div_ceil(128))
        });
        let end = (blocks + tree.sum::<u64>()) * 4096;
        // Sections of what was there before may lie below the last one.
        let mut index = evenkeel_node_agent::slot::index::layers(&region).unwrap();
        index.truncate(staged.record.layers.len());
        let floor = index.last().map_or(region.record_at(), |layer| layer.section_at);
        assert_eq!(index.len(), staged.record.layers.len(), "the content index has all layers");
        (read(0, end), read(floor, region.record_at()))
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        install::create_disk(&path, Sizes { disk: Some(DISK), slot: Some(SLOT), slots: 2 }).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        Self { folder, file, runtime: Runtime::new().unwrap() }
    }

    fn machine(&self, sectors: Sectors) -> Machine {
        let recorder = Arc::new(Recorder::new(self.file.clone(), sectors));
        let device: Arc<dyn BlockDevice> = recorder.clone();
        let disk = Disk::on(&device, Path::new("memory")).unwrap();
        Machine { recorder, disk }
    }

    fn serve(&self, image: &Image) -> OddServer {
        self.runtime.block_on(OddServer::start(image, Habits::default()))
    }

    fn check(&self, case: &Case) -> Result<(), TestCaseError> {
        let (image, oracle) = case.image(&case.wanted);
        let server = self.serve(&image);
        let fresh = self.machine(Sectors::new());
        let direct = fresh.stage(self, &server, "b")?;
        let expected = fresh.bytes("b", &direct);
        let (path, at) = (self.folder.path().join("filesystem"), self.folder.path().join("at"));
        // With its hash tree: fsck.erofs reads some bytes behind the last inode, whatever is there.
        fs::write(&path, &expected.0).unwrap();
        shows(&oracle, &path, &at)?;

        let machine = self.before(case)?;
        let staged = machine.stage(self, &server, "b")?;
        let found = machine.bytes("b", &staged);
        prop_assert!(found.0 == expected.0, "the file system or its hash tree differs");
        prop_assert!(found.1 == expected.1, "the content index differs");
        let own = |staged: &Staged| (staged.record.layers.clone(), staged.record.root_hash.clone());
        prop_assert_eq!(own(&staged), own(&direct));
        if let Some(missing) = case.missing(&image) {
            prop_assert_eq!(staged.cost.bytes_downloaded, i64::try_from(missing).unwrap());
        }
        Ok(())
    }

    /// The machine before the wanted image is staged.
    fn before(&self, case: &Case) -> Result<Machine, TestCaseError> {
        let mut machine = self.machine(Sectors::new());
        let put = |machine: &Machine, pick: &Pick, slot: &str| {
            machine.stage(self, &self.serve(&case.image(pick).0), slot)
        };
        if let Some(pick) = &case.other {
            put(&machine, pick, "a")?;
        }
        match &case.own {
            Own::Nothing => {}
            Own::Whole(pick) => {
                put(&machine, pick, "b")?;
            }
            Own::Cut(pick, part, how) => {
                put(&machine, pick, "b")?;
                let ops = machine.recorder.take_log();
                let at = ops.len() * usize::from(*part) / 256;
                let story = Story { file: self.file.clone(), before: Sectors::new(), known: (), ops };
                let mut left = Vec::new();
                story.cuts(at..at + 1, 2, |cut| left.push(cut.sectors));
                machine = self.machine(left.swap_remove(usize::from(*how) % left.len()));
            }
        }
        for (slot, place) in &case.damage {
            let window = machine.disk.slot(slot).unwrap().open_rw().unwrap();
            let mut byte = [0];
            window.read_at(*place, &mut byte).unwrap();
            window.write_at(*place, &[!byte[0]]).unwrap();
        }
        Ok(machine)
    }
}

#[test]
fn where_a_layer_comes_from_changes_no_byte() {
    let world = World::new();
    // Each look takes some tenths of a second.
    let config = ProptestConfig { max_shrink_time: 60_000, ..config(IMAGES) };
    let outcome = TestRunner::new(config).run(&cases(), |case| world.check(&case));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
