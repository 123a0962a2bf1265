//! `cargo bench -p evenkeel-node-agent`: how long an image takes from a registry on this machine into a slot, and how long the
//! same takes with the usual tools one after the other (skopeo, umoci, mkfs.erofs, dd). Needs root.

#[path = "../tests/staging/image.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod image;
#[path = "../tests/staging/registry.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod registry;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use image::{Compressed, INITRD, KERNEL, Recipe, noise};
use registry::Registry;

/// Bytes of files in the image.
const IMAGE: u64 = 300 << 20;
const KERNEL_LENGTH: usize = 8 << 20;
const INITRD_LENGTH: usize = 30 << 20;
/// What a machine's root file system is made of.
const SOURCES: [&str; 3] = ["/usr/lib", "/usr/bin", "/usr/share"];
const ROUNDS: u32 = 3;
const POLL: Duration = Duration::from_millis(10);

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let layer = files();
    println!("{:<8} {:>10} {:>10} {:>8} {:>12}", "layers", "agent", "tools", "ratio", "agent's peak");
    for (name, compressed) in [("gzip", Compressed::Gzip), ("zstd", Compressed::ZstdFrames)] {
        let kernel = image::tar(&[(KERNEL, &noise(KERNEL_LENGTH, 1)), (INITRD, &noise(INITRD_LENGTH, 2))]);
        let recipe = Recipe { layers: vec![layer.clone(), kernel], compressed, ..Recipe::default() };
        let image = runtime.block_on(registry.push(&recipe.build(), &format!("os:{name}")));
        let rounds: Vec<(Duration, u64)> = (0..ROUNDS).map(|_| agent(folder.path(), &image)).collect();
        let agent = rounds.iter().map(|round| round.0).min().expect("at least one round");
        let peak = rounds.iter().map(|round| round.1).max().expect("at least one round");
        print!("{name:<8} {agent:>10.2?} ");
        // umoci knows no zstd.
        if compressed == Compressed::Gzip {
            let tools = (0..ROUNDS).map(|_| tools(folder.path(), &image)).min().expect("at least one round");
            print!("{tools:>10.2?} {:>7.1}x", tools.as_secs_f64() / agent.as_secs_f64());
        } else {
            print!("{:>10} {:>8}", "-", "-");
        }
        println!(" {:>8} MiB", peak >> 10);
    }
}

/// A tar of this machine's own files.
fn files() -> Vec<u8> {
    let mut list = Vec::new();
    let mut bytes = 0;
    let mut open: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let mut below: Vec<PathBuf> = fs::read_dir(&path).unwrap().flatten().map(|e| e.path()).collect();
            below.sort();
            open.append(&mut below);
        } else if meta.is_file() && meta.len() < IMAGE / 10 && bytes < IMAGE {
            bytes += meta.len();
            list.push(path);
        }
    }
    let names = tempfile::NamedTempFile::new().unwrap();
    let text: Vec<String> = list.iter().map(|path| format!("{}\n", path.display())).collect();
    fs::write(names.path(), text.concat()).unwrap();
    let output = Command::new("tar")
        .args(["-c", "--no-recursion", "-f", "-", "-T"])
        .arg(names.path())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "tar: {}", output.status);
    output.stdout
}

/// How long it took, and the most memory that it had, in KiB.
fn agent(folder: &Path, image: &str) -> (Duration, u64) {
    let disk = folder.join("disk.img");
    let _ = fs::remove_file(&disk);
    let agent = env!("CARGO_BIN_EXE_evenkeel-agent");
    run(Command::new(agent).args(["disk", "create", "--size", "4GiB", "--slot-size", "1GiB"]).arg(&disk));
    let begin = Instant::now();
    let mut process = Command::new(agent)
        .args(["stage", image, "--plain-http", "--slot", "b", "--disk"])
        .arg(&disk)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", process.id()));
    let mut peak = 0;
    let ended = loop {
        // What the kernel tells of a child after its end includes this program's own memory at the fork.
        peak = high_water(&status).unwrap_or(peak);
        if let Some(ended) = process.try_wait().unwrap() {
            break ended;
        }
        thread::sleep(POLL);
    };
    assert!(ended.success(), "{ended}");
    (begin.elapsed(), peak)
}

fn high_water(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn tools(folder: &Path, image: &str) -> Duration {
    let (layout, bundle) = (folder.join("layout"), folder.join("bundle"));
    let (erofs, slot) = (folder.join("image.erofs"), folder.join("slot"));
    for path in [&layout, &bundle] {
        let _ = fs::remove_dir_all(path);
    }
    for path in [&erofs, &slot] {
        let _ = fs::remove_file(path);
    }
    let begin = Instant::now();
    run(Command::new("skopeo")
        .args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{image}")])
        .arg(format!("oci:{}:1", layout.display())));
    run(Command::new("umoci").args(["unpack", "--image", &format!("{}:1", layout.display())]).arg(&bundle));
    run(Command::new("mkfs.erofs").arg(&erofs).arg(bundle.join("rootfs")));
    let (from, to) = (format!("if={}", erofs.display()), format!("of={}", slot.display()));
    run(Command::new("dd").args([&from, &to, "bs=1M", "conv=fsync"]));
    begin.elapsed()
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
