//! The real operator as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use evenkeel_e2e::process::{Port, Service};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::sleep,
};

use crate::rights::NAMESPACE;

/// What the operator takes when it is told nothing: a busy machine does not make it lose the lease, and what it counted with that.
pub const LEASE: u16 = 15;
/// The shortest lease that the operator takes: takeovers are not waited for longer than they must be.
pub const SHORT_LEASE: u16 = 3;
const READY_LIMIT: Duration = Duration::from_mins(1);
const STOP_TIME: Duration = Duration::from_secs(10);
const NANNY_PERIOD: Duration = Duration::from_millis(200);

/// An operator that runs until it is dropped. As a pod's container it is started again when it ends by itself.
pub struct Operator {
    port: Port,
    state: Arc<Mutex<State>>,
    nanny: JoinHandle<()>,
}

/// What a replica is told beside its name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its program.
    pub program: PathBuf,
    /// Docker configuration with credentials.
    pub docker_config: Option<PathBuf>,
    /// Whether it writes lifecycle conditions.
    pub lifecycle_conditions: bool,
    /// For how long its lease holds.
    pub lease_seconds: u16,
}

struct State {
    service: Service,
    recipe: Recipe,
    wanted: bool,
}

#[derive(Clone)]
struct Recipe {
    name: String,
    binary: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
    docker_config: Option<PathBuf>,
    lifecycle_conditions: bool,
    lease_seconds: Option<u16>,
    port: u16,
}

impl Recipe {
    fn new(name: &str, program: &Path, folder: &Path, kubeconfig: &Path) -> Self {
        Self {
            name: name.to_owned(),
            binary: program.to_owned(),
            folder: folder.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            docker_config: None,
            lifecycle_conditions: false,
            lease_seconds: None,
            port: 0,
        }
    }

    fn start(&self) -> Result<Service> {
        Service::start(&self.name, command(self), &self.folder.join(format!("{}.log", self.name)))
    }
}

impl Operator {
    /// Starts a replica of this name.
    pub fn start(name: &str, folder: &Path, kubeconfig: &Path, settings: Settings) -> Result<Self> {
        let recipe = Recipe {
            docker_config: settings.docker_config,
            lifecycle_conditions: settings.lifecycle_conditions,
            lease_seconds: Some(settings.lease_seconds),
            ..Recipe::new(name, &settings.program, folder, kubeconfig)
        };
        Self::follow(recipe)
    }

    /// Starts this program with no other settings than those of a user who says nothing.
    pub fn start_program(name: &str, program: &Path, folder: &Path, kubeconfig: &Path) -> Result<Self> {
        Self::follow(Recipe::new(name, program, folder, kubeconfig))
    }

    fn follow(recipe: Recipe) -> Result<Self> {
        let port = Port::free()?;
        let recipe = Recipe { port: port.number(), ..recipe };
        let state = State { service: recipe.start()?, recipe, wanted: true };
        let state = Arc::new(Mutex::new(state));
        let nanny = tokio::spawn(look_after(Arc::clone(&state)));
        Ok(Self { port, state, nanny })
    }

    /// SIGKILL; it stays away until it is started again.
    pub fn kill(&self) {
        let mut state = lock(&self.state);
        state.wanted = false;
        state.service.kill();
    }

    /// SIGSTOP: it stands still until it is resumed or killed.
    pub fn pause(&self) {
        lock(&self.state).service.pause();
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        lock(&self.state).service.resume();
    }

    /// SIGTERM; whether it ended in good order. It stays away until it is started again.
    pub async fn stop(&self) -> bool {
        let end = Instant::now() + STOP_TIME;
        {
            let mut state = lock(&self.state);
            state.wanted = false;
            state.service.terminate();
        }
        while Instant::now() < end {
            if let Some(status) = lock(&self.state).service.ended() {
                return status.success();
            }
            sleep(NANNY_PERIOD).await;
        }
        self.kill();
        false
    }

    /// Starts it again as what it was.
    pub fn restart(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.service.kill();
        state.service = state.recipe.start()?;
        state.wanted = true;
        Ok(())
    }

    /// SIGKILL, and another program in its place.
    pub fn replace(&self, program: &Path) -> Result<()> {
        program.clone_into(&mut lock(&self.state).recipe.binary);
        self.restart()
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self) -> Result<()> {
        let end = Instant::now() + READY_LIMIT;
        loop {
            match self.get("/readyz").await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
                other if Instant::now() > end => bail!("not ready ({other:?})\n{}", self.log()),
                _ => sleep(NANNY_PERIOD).await,
            }
        }
    }

    /// What it answers on its port.
    pub async fn get(&self, path: &str) -> Result<String> {
        get(self.port.number(), path).await
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        lock(&self.state).service.pid()
    }

    /// Whether its log has these words, in whichever of its lives.
    pub fn said(&self, words: &str) -> Result<bool> {
        let log = lock(&self.state).service.log().to_owned();
        Ok(fs::read_to_string(log)?.contains(words))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let state = lock(&self.state);
        format!("{}:\n{}", state.recipe.name, state.service.tail())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.nanny.abort();
        self.kill();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn look_after(state: Arc<Mutex<State>>) {
    loop {
        sleep(NANNY_PERIOD).await;
        let mut state = lock(&state);
        if state.wanted && state.service.ended().is_some() {
            match state.recipe.start() {
                Ok(service) => state.service = service,
                Err(_) => return,
            }
        }
    }
}

fn command(recipe: &Recipe) -> Command {
    let Recipe { name, binary, kubeconfig, docker_config, lifecycle_conditions, lease_seconds, port, .. } =
        recipe;
    let mut command = Command::new(binary);
    command
        .args(["--namespace", NAMESPACE, "--identity", name])
        .arg(format!("--metrics-addr=127.0.0.1:{port}"))
        .env("KUBECONFIG", kubeconfig)
        .env("NO_COLOR", "1");
    if let Some(seconds) = lease_seconds {
        command.arg(format!("--lease-seconds={seconds}"));
    }
    if *lifecycle_conditions {
        command.arg("--lifecycle-conditions");
    }
    if let Some(config) = docker_config {
        command.arg("--docker-config").arg(config);
    }
    command
}

async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
