//! The real operator as a process.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use evenkeel_e2e::process::{Port, Service};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{binaries::Binaries, rights::NAMESPACE};

/// The shortest lease that the operator takes: tests do not wait for takeovers longer than they must.
const LEASE_SECONDS: &str = "3";
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_TIME: Duration = Duration::from_secs(10);

/// An operator that runs until it is dropped.
pub struct Operator {
    name: String,
    folder: PathBuf,
    kubeconfig: PathBuf,
    docker_config: Option<PathBuf>,
    port: Port,
    service: Service,
}

impl Operator {
    /// Starts a replica of this name.
    pub async fn start(
        name: &str,
        folder: &Path,
        kubeconfig: &Path,
        docker_config: Option<&Path>,
    ) -> Result<Self> {
        let port = Port::free()?;
        let (docker_config, binary) = (docker_config.map(Path::to_owned), Binaries::built().await?);
        let command = command(&binary.operator, name, kubeconfig, docker_config.as_deref(), port.number());
        let service = Service::start(name, command, &folder.join(format!("{name}.log")))?;
        let (folder, kubeconfig) = (folder.to_owned(), kubeconfig.to_owned());
        Ok(Self { name: name.to_owned(), folder, kubeconfig, docker_config, port, service })
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// SIGTERM; whether it ended in good order.
    pub async fn stop(&mut self) -> bool {
        self.service.stop(STOP_TIME).await.is_some_and(|status| status.success())
    }

    /// Starts it again as what it was.
    pub async fn restart(&mut self) -> Result<()> {
        self.service.kill();
        let binary = Binaries::built().await?;
        let config = self.docker_config.as_deref();
        let command = command(&binary.operator, &self.name, &self.kubeconfig, config, self.port.number());
        self.service = Service::start(&self.name, command, &self.folder.join(format!("{}.log", self.name)))?;
        Ok(())
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.service.ended().is_none()
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let port = self.port.number();
        self.service
            .wait("ready", READY_LIMIT, || async move {
                let answer = get(port, "/readyz").await?;
                answer.starts_with("HTTP/1.1 200").then_some(()).with_context(|| answer)
            })
            .await
    }

    /// What it answers on its port.
    pub async fn get(&self, path: &str) -> Result<String> {
        get(self.port.number(), path).await
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        format!("{}:\n{}", self.name, self.service.tail())
    }
}

fn command(binary: &Path, name: &str, kubeconfig: &Path, docker_config: Option<&Path>, port: u16) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["--namespace", NAMESPACE, "--identity", name, "--lease-seconds", LEASE_SECONDS])
        .arg(format!("--metrics-addr=127.0.0.1:{port}"))
        .env("KUBECONFIG", kubeconfig)
        .env("NO_COLOR", "1");
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
