//! Who takes the image from the registry, and how long.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(5);
/// Clock ticks of `/proc/PID/stat` in a second, on every architecture that Linux has today.
const TICKS: f64 = 100.0;
const CONTAINERD_WAIT: Duration = Duration::from_secs(20);

/// One run of ours.
pub struct Run {
    pub time: Duration,
    /// Seconds of all cores together: ours, and with those of the registry.
    pub busy: f64,
    pub busy_in_all: f64,
    pub peak_mib: f64,
    /// Bytes that the disk was given.
    pub written: u64,
}

/// Ours, into the empty slot of a new disk. `registry` is the process that gives the image.
pub fn agent(folder: &Path, registry: u32, image: &str, bytes: u64, files: usize) -> Run {
    let disk = folder.join("disk.img");
    let _ = fs::remove_file(&disk);
    let agent = env!("CARGO_BIN_EXE_evenkeel-agent");
    // Each file ends in a block that is not full; metadata and the hash tree fit into a half more, and two slots and the
    // rest into four.
    let slot = ((bytes + files as u64 * 4096) * 3 / 2).max(256 << 20) >> 20;
    let (size, slot) = (format!("{}MiB", 4 * slot + 2048), format!("{slot}MiB"));
    run(Command::new(agent).args(["disk", "create", "--size", &size, "--slot-size", &slot]).arg(&disk));
    let account = folder.join("account.json");
    let registry_busy = || usage(registry).map_or(0.0, |(_, busy)| busy);
    let registry_before = registry_busy();
    let begin = Instant::now();
    let mut process = Command::new(agent)
        .args(["stage", image, "--plain-http", "--slot", "b", "--output", "json", "--disk"])
        .arg(&disk)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&account).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut peak, mut busy) = (0.0, 0.0);
    let ended = loop {
        // What the kernel tells of a child after its end includes this program's own memory at the fork.
        (peak, busy) = usage(process.id()).unwrap_or((peak, busy));
        if let Some(ended) = process.try_wait().unwrap() {
            break ended;
        }
        thread::sleep(POLL);
    };
    let time = begin.elapsed();
    assert!(ended.success(), "{ended}");
    let account: serde_json::Value = serde_json::from_slice(&fs::read(account).unwrap()).unwrap();
    fs::remove_file(&disk).unwrap();
    let busy_in_all = busy + registry_busy() - registry_before;
    Run { time, busy, busy_in_all, peak_mib: peak, written: account["bytesWritten"].as_u64().unwrap() }
}

/// Most memory so far in MiB, and seconds of all cores.
fn usage(process: u32) -> Option<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which is in brackets, come the third field and those after it; the 14th and 15th are times.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
    Some((kib / 1024.0, ticks / TICKS))
}

/// The usual tools, one after the other.
pub fn tools(folder: &Path, image: &str) -> Duration {
    let (layout, bundle) = (folder.join("layout"), folder.join("bundle"));
    let (erofs, slot) = (folder.join("image.erofs"), folder.join("slot"));
    let begin = Instant::now();
    run(Command::new("skopeo")
        .args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{image}")])
        .arg(format!("oci:{}:1", layout.display())));
    run(Command::new("umoci").args(["unpack", "--image", &format!("{}:1", layout.display())]).arg(&bundle));
    run(Command::new("mkfs.erofs").arg(&erofs).arg(bundle.join("rootfs")));
    let (from, to) = (format!("if={}", erofs.display()), format!("of={}", slot.display()));
    run(Command::new("dd").args([&from, &to, "bs=1M", "conv=fsync"]));
    let time = begin.elapsed();
    fs::remove_dir_all(&layout).unwrap();
    fs::remove_dir_all(&bundle).unwrap();
    fs::remove_file(&erofs).unwrap();
    fs::remove_file(&slot).unwrap();
    time
}

/// A containerd of its own, if there is one.
pub fn containerd(folder: &Path, image: &str) -> Option<Duration> {
    let (containerd, ctr) = (program("containerd")?, program("ctr")?);
    let home = folder.join("containerd");
    fs::create_dir_all(&home).unwrap();
    let socket = home.join("socket");
    let daemon = Command::new(containerd)
        .args(["--config", "/dev/null", "--address"])
        .arg(&socket)
        .arg("--root")
        .arg(home.join("root"))
        .arg("--state")
        .arg(home.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Daemon(daemon);
    let ctr = || {
        let mut command = Command::new(&ctr);
        command.arg("--address").arg(&socket);
        command
    };
    let end = Instant::now() + CONTAINERD_WAIT;
    while !ctr().arg("version").output().unwrap().status.success() {
        assert!(Instant::now() < end, "containerd does not come up");
        thread::sleep(POLL);
    }
    let begin = Instant::now();
    run(ctr().args(["images", "pull", "--plain-http", "--snapshotter", "overlayfs", image]));
    let time = begin.elapsed();
    drop(daemon);
    fs::remove_dir_all(&home).unwrap();
    Some(time)
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
