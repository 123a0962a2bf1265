//! `evenkeel-agent run` where there is no cluster to be seen: it waits, it ends when it is told to, and two do not
//! follow one plan.

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A cluster that is away, and a host that was not booted from a slot.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path().join("proc");
        fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
        fs::write(proc.join("cmdline"), "root=/dev/sda1 quiet\n").unwrap();
        fs::write(proc.join("sys/kernel/random/boot_id"), "6f1c3d6e-0000-4000-8000-000000000001\n").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        );
        fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        Self(folder)
    }

    fn agent(&self, log: &str) -> Agent {
        let path = |name: &str| self.0.path().join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"))
            .args(["run", "--node-name", "node-1", "--state-dir"])
            .arg(path("state"))
            .arg("--proc")
            .arg(path("proc"))
            .env("KUBECONFIG", path("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path(log)).unwrap())
            .spawn()
            .unwrap();
        Agent(process)
    }

    fn until_logged(&self, log: &str, words: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !read(&self.0.path().join(log)).contains(words) {
            assert!(Instant::now() < end, "{words:?} is not in: {}", read(&self.0.path().join(log)));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

struct Agent(Child);

impl Agent {
    /// Asks it to end, as a kubelet does, and gives how it ended and how long that took.
    fn terminate(mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        (self.0.wait().unwrap(), begin.elapsed())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_a_cluster_it_waits_and_ends_when_it_is_told_to() {
    let host = Host::new();
    let agent = host.agent("log");
    host.until_logged("log", "cannot watch this node's plan");
    let (status, elapsed) = agent.terminate();
    assert!(status.success(), "{status}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[test]
fn a_second_agent_waits_for_the_first_and_takes_over_when_it_is_killed() {
    let host = Host::new();
    let mut first = host.agent("first");
    host.until_logged("first", "following this node's plan");
    let second = host.agent("second");
    host.until_logged("second", "waiting for another agent to end");
    first.0.kill().unwrap();
    host.until_logged("second", "following this node's plan");
    assert!(second.terminate().0.success());
}
