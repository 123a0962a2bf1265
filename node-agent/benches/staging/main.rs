//! `make bench-node`: how long an image takes from a registry on this machine into a slot, beside what the machine could do
//! at best, and beside the usual tools; and how much memory it takes. Needs root, and nobody else on the machine.
//!
//! Options: `--size MIB`, `--files N`, `--rounds N`, `--ours` (no other tools).

mod bound;
mod contenders;
#[path = "../../tests/staging/image.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod image;
#[path = "../../tests/staging/registry.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod registry;
mod tree;

use std::time::Duration;

use registry::Registry;

/// What was asked for.
struct Options {
    bytes: u64,
    files: usize,
    rounds: usize,
    only_ours: bool,
}

impl Options {
    fn parse() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let number = |name: &str, default: u64| {
            let at = arguments.iter().position(|argument| argument == name);
            at.map_or(default, |at| arguments[at + 1].parse().expect("a number behind the option"))
        };
        Self {
            bytes: number("--size", 400) << 20,
            files: usize::try_from(number("--files", 15_000)).unwrap(),
            rounds: usize::try_from(number("--rounds", 3)).unwrap(),
            only_ours: arguments.iter().any(|argument| argument == "--ours"),
        }
    }
}

fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let image = tree::image(options.bytes, options.files);
    let name = tokio::runtime::Runtime::new().unwrap().block_on(registry.push(&image.image, "os:1"));
    let cores = std::thread::available_parallelism().unwrap().get();
    println!(
        "{} MiB in {} files, {} gzip layers of {} MiB, {cores} cores, {} rounds",
        image.bytes >> 20,
        image.files,
        image.image.layers.len(),
        image.image.layers.iter().map(|layer| layer.bytes.len()).sum::<usize>() >> 20,
        options.rounds
    );
    let mut rounds = Rounds::default();
    for _ in 0..options.rounds {
        let ours = contenders::agent(folder.path(), registry.process(), &name, image.bytes, image.files);
        rounds.inflate.push(bound::inflate_and_hash(&image.image));
        rounds.write.push(bound::write(folder.path(), ours.written));
        rounds.ours.push(ours);
        if !options.only_ours {
            rounds.tools.push(contenders::tools(folder.path(), &name));
            rounds.containerd.extend(contenders::containerd(folder.path(), &name));
        }
    }
    rounds.print(cores);
}

#[derive(Default)]
struct Rounds {
    ours: Vec<contenders::Run>,
    inflate: Vec<Duration>,
    write: Vec<Duration>,
    tools: Vec<Duration>,
    containerd: Vec<Duration>,
}

impl Rounds {
    fn print(&self, cores: usize) {
        let seconds = |times: &[Duration]| times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
        let ours: Vec<f64> = self.ours.iter().map(|run| run.time.as_secs_f64()).collect();
        let (inflate, write) = (seconds(&self.inflate), seconds(&self.write));
        let bound: Vec<f64> = inflate.iter().zip(&write).map(|(one, other)| one.max(*other)).collect();
        println!("{:<44} {:>8} {:>8} {:>8}", "", "min", "median", "max");
        line("evenkeel-agent stage, s", &ours);
        line("inflate and hash all layers, s", &inflate);
        line("write the slot's bytes past the cache, s", &write);
        line("ours / the larger of the two", &ratios(&ours, &bound));
        if !self.tools.is_empty() {
            line("skopeo, umoci, mkfs.erofs, dd, s", &seconds(&self.tools));
            line("these / ours", &ratios(&seconds(&self.tools), &ours));
        }
        if self.containerd.is_empty() {
            println!("containerd was left out: it needs `containerd` and `ctr` in the PATH");
        } else {
            line("ctr images pull (overlayfs), s", &seconds(&self.containerd));
            line("this / ours", &ratios(&seconds(&self.containerd), &ours));
        }
        line("our peak of memory, MiB", &self.ours.iter().map(|run| run.peak_mib).collect::<Vec<_>>());
        let share = |busy: fn(&contenders::Run) -> f64| -> Vec<f64> {
            self.ours.iter().map(|run| busy(run) / run.time.as_secs_f64()).collect()
        };
        let busy = share(|run| run.busy_in_all);
        line("cores that we kept busy", &share(|run| run.busy));
        line("cores busy, with the registry's work", &busy);
        println!("what bounds ours: {}", bounds(middle(&busy), middle(&write) / middle(&ours), cores));
    }
}

/// What a run waits for, from the cores that it had busy and the share of its time that its writing alone takes.
fn bounds(busy: f64, write: f64, cores: usize) -> &'static str {
    if busy > 0.8 * f64::from(u32::try_from(cores).unwrap()) {
        "all cores, with inflating, hashing and taking bytes from the registry"
    } else if write > 0.8 {
        "the disk's rate of writing"
    } else {
        "the one thread that inflates a layer, as a gzip stream cannot be divided"
    }
}

fn line(name: &str, values: &[f64]) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
    println!("{name:<44} {min:>8.2} {:>8.2} {max:>8.2}", middle(values));
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}
