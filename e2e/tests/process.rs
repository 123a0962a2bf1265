//! Nothing that was started stays when its owner is gone, however he went.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use evenkeel_e2e::process::{Port, Scratch, Service};

/// Set for a copy of this program that plays the owner.
const OWNER: &str = "EVENKEEL_TEST_OWNER";

fn sleeper(scratch: &Scratch) -> Result<Service> {
    let mut command = Command::new("sleep");
    command.arg("1000");
    Service::start("sleeper", command, &scratch.path().join("sleeper.log"))
}

fn runs(pid: &str) -> bool {
    // One that is dead and not yet buried does not run.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

fn within(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let step = Duration::from_millis(50);
    (0..limit.as_millis() / step.as_millis()).any(|_| {
        sleep(step);
        holds()
    })
}

#[test]
fn plays_the_owner_when_told_to() -> Result<()> {
    if std::env::var_os(OWNER).is_none() {
        return Ok(());
    }
    let scratch = Scratch::new("owner")?;
    // Started on a thread that ends before the process does, as a test's does.
    let service = std::thread::scope(|scope| scope.spawn(|| sleeper(&scratch)).join());
    let service = service.map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    println!("\nOWNER {} {}", service.pid(), scratch.path().display());
    loop {
        sleep(Duration::from_mins(1));
    }
}

#[test]
fn processes_and_folders_go_with_an_owner_that_is_killed() -> Result<()> {
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "plays_the_owner_when_told_to", "--nocapture"])
        .env(OWNER, "1")
        .env_remove("KEEP")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(owner.stdout.take().context("the owner's output is a pipe")?).lines();
    let line = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("OWNER ").map(str::to_owned));
    let line = line.context("the owner said nothing")?;
    let (pid, folder) = line.split_once(' ').context("the owner says two words")?;
    assert!(runs(pid) && Path::new(folder).is_dir());
    sleep(Duration::from_millis(300));
    assert!(runs(pid), "the program ended with the thread that asked for it");
    owner.kill()?;
    owner.wait()?;
    assert!(within(Duration::from_secs(10), || !runs(pid)), "process {pid} outlived its owner");
    assert!(within(Duration::from_secs(10), || !Path::new(folder).exists()), "{folder} outlived its owner");
    Ok(())
}

#[test]
fn processes_and_folders_go_with_an_owner_that_drops_them() -> Result<()> {
    let scratch = Scratch::new("dropped")?;
    let folder = scratch.path().to_owned();
    let service = sleeper(&scratch)?;
    let pid = service.pid().to_string();
    assert!(runs(&pid));
    drop(service);
    assert!(!runs(&pid));
    drop(scratch);
    assert!(!folder.exists());
    Ok(())
}

#[test]
fn a_port_is_given_to_one_only() -> Result<()> {
    let ports = (0..50).map(|_| Port::free()).collect::<Result<Vec<_>>>()?;
    let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), ports.len());
    Ok(())
}

#[tokio::test]
async fn an_error_shows_the_end_of_the_log() -> Result<()> {
    let scratch = Scratch::new("log")?;
    let mut command = Command::new("sh");
    command.args(["-c", "echo the port is taken >&2; exit 3"]);
    let mut service = Service::start("failing", command, &scratch.path().join("failing.log"))?;
    let never = || async { anyhow::bail!("not yet") };
    let said =
        service.wait::<(), _, _>("ready", Duration::from_secs(20), never).await.unwrap_err().to_string();
    assert!(said.contains("failing ended (exit status: 3)") && said.contains("the port is taken"), "{said}");
    Ok(())
}
