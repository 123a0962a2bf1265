//! The power goes while the boot partition alone is changed: each call keeps its word, and each of its flushes is why;
//! and what nothing needs any more is taken away without harm to the rest.

use std::{collections::BTreeMap, fs::File, path::Path, sync::Arc};

use evenkeel_node_agent::{
    boot::{self, Loader},
    disk::{BlockDevice, Disk, Window},
    esp, mend,
};
use evenkeel_node_agent_core::layout::Role;

use super::{
    World,
    cuts::{Cut, Story},
    firmware::{self, Fat, Files},
    node::said,
    times,
};
use crate::{
    image::noise,
    machine::Machine,
    recorder::{Recorder, Sectors},
};

/// What was told of files: the bytes of each and what they are made from, or that it is gone.
type Told = BTreeMap<String, Option<(usize, u64)>>;

const BLOCK: &str = "folder/block";

/// A boot partition in memory, and what was told of it.
struct Partition {
    file: Arc<File>,
    recorder: Arc<Recorder<Told>>,
    disk: Disk,
    told: Told,
}

impl Partition {
    fn of(file: Arc<File>) -> Self {
        let recorder: Arc<Recorder<Told>> = Arc::new(Recorder::new(file.clone(), Sectors::new()));
        let device: Arc<dyn BlockDevice> = recorder.clone();
        let disk = Disk::on(&device, Path::new("memory")).unwrap();
        Self { file, recorder, disk, told: Told::new() }
    }

    /// The call before has returned: this is so from now on.
    fn tell(&mut self, path: &str, file: Option<(usize, u64)>) {
        self.told.insert(path.to_owned(), file);
        self.recorder.note(self.told.clone());
    }

    /// A call begins, in which it may be either, or, where a name is in two sectors, none.
    fn leave_open(&mut self, path: &str) {
        self.told.remove(path);
        self.recorder.note(self.told.clone());
    }

    fn story(&self) -> Story<Told> {
        let ops = self.recorder.take_log();
        Story { file: self.file.clone(), before: Sectors::new(), known: Told::new(), ops }
    }

    /// What firmware sees after a cut.
    fn files(&self, story: &Story<Told>, cut: &Cut<Told>) -> Result<Files, String> {
        let partition = self.disk.partition(Role::Esp).unwrap();
        let device = story.recorder(cut);
        Fat::of(&Window::new(device, partition.disk_offset, partition.length)).files()
    }

    fn check(&self, story: &Story<Told>, cut: &Cut<Told>) -> Result<(), String> {
        let files = self.files(story, cut)?;
        cut.known.iter().try_for_each(|(path, told)| {
            let told = told.map(|(length, seed)| noise(length, seed));
            if files.get(path) == told.as_ref() {
                Ok(())
            } else {
                Err(format!("{path} is not as it was told"))
            }
        })
    }
}

/// Files that are written, renamed, overwritten and removed, in a folder that is longer than a sector.
fn change_all_kinds(partition: &mut Partition) {
    let esp = esp::open(&partition.disk).unwrap();
    esp.write(BLOCK, &mut &noise(1024, 100)[..]).unwrap();
    partition.tell(BLOCK, Some((1024, 100)));
    for number in 0..6 {
        let (new, kept) =
            (format!("folder/a-long-name-{number}.new"), format!("folder/a-long-name-{number}"));
        let file = (3000 + 2000 * number, number as u64);
        esp.write(&new, &mut &noise(file.0, file.1)[..]).unwrap();
        partition.tell(&new, Some(file));
        partition.leave_open(&new);
        esp.rename(&new, &kept).unwrap();
        partition.tell(&kept, Some(file));
        if number % 2 == 1 {
            let old = format!("folder/a-long-name-{}", number - 1);
            partition.leave_open(&old);
            esp.remove(&old).unwrap();
            partition.tell(&old, None);
        }
        // As GRUB's block is.
        partition.leave_open(BLOCK);
        esp.overwrite(BLOCK, &noise(1024, 101 + number as u64)).unwrap();
        partition.tell(BLOCK, Some((1024, 101 + number as u64)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flush_of_the_boot_partition_can_be_left_out() {
    let machine = Machine::empty();
    esp::format(&machine.disk).unwrap();
    let mut partition = Partition::of(Arc::new(File::open(machine.disk.path()).unwrap()));
    change_all_kinds(&mut partition);
    let story = partition.story();
    let mut disks = 0;
    story.cuts(0..story.ops.len(), 20 * times(), |cut| {
        disks += 1;
        partition.check(&story, &cut).unwrap_or_else(|error| panic!("cut at {}: {error}", cut.at));
    });
    let flushes = story.flushes();
    let mut needless = Vec::new();
    for (index, flush) in flushes.iter().enumerate() {
        let end = flushes.get(index + 1).copied().unwrap_or(story.ops.len());
        let (mutant, mut noticed) = (story.without(*flush), false);
        mutant.cuts(*flush..end, 40 * times(), |cut| {
            noticed = noticed || partition.check(&mutant, &cut).is_err();
        });
        if !noticed {
            needless.push(*flush);
        }
    }
    println!("{disks} disks of calls on the boot partition, {} flushes", flushes.len());
    assert!(needless.is_empty(), "nothing noticed that these were missing: {needless:?}");
}

/// A disk without its kernel, or with another initrd, gets them back; until then what else it boots by stays, and whoever
/// begins again comes to the end.
#[tokio::test(flavor = "multi_thread")]
async fn mending_can_be_cut_off_anywhere_and_begun_again() {
    for (loader, kind) in [(Loader::SystemdBoot, "vmlinuz-"), (Loader::Grub, "initrd-")] {
        let world = World::new(loader).await;
        let before = esp::open(&world.machine.disk).unwrap();
        let files = before.list("evenkeel").unwrap();
        let damaged = files.iter().find(|file| file.name.starts_with(kind)).unwrap();
        before.write(&format!("evenkeel/{}", damaged.name), &mut &noise(9_000, 1)[..]).unwrap();
        let partition = Partition::of(Arc::new(File::open(world.machine.disk.path()).unwrap()));
        let ill = |disk: &Disk| boot::damaged_files(disk, &*boot::open(disk).unwrap()).unwrap();
        assert_eq!(ill(&partition.disk).len(), 1);
        assert_eq!(mend::restore_boot_files(&partition.disk).unwrap().written.len(), 1);
        let story = partition.story();
        let mut disks = 0;
        story.cuts(0..story.ops.len(), 20 * times(), |cut| {
            disks += 1;
            let device: Arc<dyn BlockDevice> = story.recorder(&cut);
            let disk = Disk::on(&device, Path::new("memory")).unwrap();
            let left = ill(&disk);
            let only_that = left.iter().all(|file| file.path.ends_with(&damaged.name));
            assert!(left.len() <= 1 && only_that, "{loader:?}, cut at {}: {left:?}", cut.at);
            let mended = mend::restore_boot_files(&disk).unwrap();
            assert!(mended.why.is_none(), "{loader:?}, after a cut at {}: {mended:?}", cut.at);
            let esp = disk.partition(Role::Esp).unwrap();
            let window = Window::new(device.clone(), esp.disk_offset, esp.length);
            let entries = firmware::entries(&window).unwrap();
            let boots = |entry: &firmware::Entry| entry.kernel.is_some() && entry.initrd.is_some();
            assert!(entries.len() == 1 && entries.iter().all(boots), "{loader:?}, after a cut at {}", cut.at);
            assert!(ill(&disk).is_empty(), "{loader:?}, after a cut at {}", cut.at);
        });
        println!("{loader:?}: {disks} disks of mending");
        assert!(disks > 20, "only {disks} disks");
    }
}

/// Old kernels and initrds, and files that were never finished.
#[tokio::test(flavor = "multi_thread")]
async fn collecting_takes_what_no_entry_names_and_nothing_else() {
    for loader in [Loader::SystemdBoot, Loader::Grub] {
        let world = World::new(loader).await;
        let before = esp::open(&world.machine.disk).unwrap();
        for number in 0..6 {
            let name = format!(
                "evenkeel/{}-{number:016x}{}",
                ["vmlinuz", "initrd"][number % 2],
                [".new", ""][number / 3]
            );
            before.write(&name, &mut &noise(9_000 + 5000 * number, number as u64)[..]).unwrap();
        }
        let partition = Partition::of(Arc::new(File::open(world.machine.disk.path()).unwrap()));
        boot::open(&partition.disk).unwrap().commit("a").unwrap();
        let story = partition.story();
        let collected = |disk: &Disk| {
            let files = esp::open(disk).unwrap().list("evenkeel").unwrap();
            files.iter().filter(|file| file.name.contains('-')).count()
        };
        assert_eq!(collected(&partition.disk), 2, "kernel and initrd of the slot that is kept");
        let mut disks = 0;
        story.cuts(0..story.ops.len(), 20 * times(), |cut| {
            disks += 1;
            let device: Arc<dyn BlockDevice> = story.recorder(&cut);
            let disk = Disk::on(&device, Path::new("memory")).unwrap();
            let whole = || -> Result<(), String> {
                let esp = disk.partition(Role::Esp).unwrap();
                let window = Window::new(device.clone(), esp.disk_offset, esp.length);
                let entries = firmware::entries(&window)?;
                let boots = |entry: &firmware::Entry| entry.kernel.is_some() && entry.initrd.is_some();
                if entries.len() == 1 && entries.iter().all(boots) {
                    Ok(())
                } else {
                    Err(format!("{entries:?}"))
                }
            };
            whole().unwrap_or_else(|error| panic!("{loader:?}, cut at {}: {error}", cut.at));
            boot::open(&disk).and_then(|loader| loader.commit("a")).map_err(said).unwrap();
            assert_eq!(collected(&disk), 2, "{loader:?}, after a cut at {}", cut.at);
            whole().unwrap_or_else(|error| panic!("{loader:?}, after a cut at {}: {error}", cut.at));
        });
        println!("{loader:?}: {disks} disks of collecting");
        assert!(disks > 20, "only {disks} disks");
    }
}
