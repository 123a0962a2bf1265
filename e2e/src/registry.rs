//! A real image registry on a loopback port, and how images get into it.

mod certificate;
mod chunked;
mod image;
mod push;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    host_packages,
    process::{Port, Service},
};

pub use certificate::Certificate;
pub use chunked::Form;
pub use image::{Compression, Flavour, Image, Layer, digest_of};
pub use push::{Pushed, push, push_document, push_index};

const READY_LIMIT: Duration = Duration::from_secs(30);
/// The lowest cost that bcrypt has: the registry checks the password with each request.
const PASSWORD_COST: u32 = 4;

/// What a registry asks of its users.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name and password that it wants; absent: everybody may come in.
    pub htpasswd: Option<(String, String)>,
    /// Its certificate; absent: it speaks plain HTTP.
    pub certificate: Option<Certificate>,
    /// The authority (PEM) that each client's certificate must be from; absent: clients need none. Needs a certificate.
    pub client_authority: Option<String>,
}

/// A running registry. It ends when this is dropped; what it stores stays in its folder.
#[derive(Debug)]
pub struct Registry {
    port: Port,
    folder: PathBuf,
    options: Options,
    service: Service,
}

impl Registry {
    /// Starts Debian's docker-registry with its storage and log in `folder`.
    pub async fn start(folder: &Path, options: Options) -> Result<Self> {
        host_packages::ensure(&[("docker-registry", "docker-registry")]).await?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let port = Port::free()?;
        configure(folder, &options, port.number())?;
        let service = serve(folder)?;
        let mut registry = Self { port, folder: folder.to_owned(), options, service };
        registry.wait_ready().await?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`, the first part of an image's reference.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where it stores blobs and manifests.
    pub fn storage(&self) -> PathBuf {
        self.folder.join("storage")
    }

    /// Name and password that it wants.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.options.htpasswd.as_ref().map(|(name, password)| (name.as_str(), password.as_str()))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it again, on the same port with the same storage.
    pub async fn restart(&mut self) -> Result<()> {
        self.service.kill();
        self.service = serve(&self.folder)?;
        self.wait_ready().await
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let port = self.port.number();
        self.service
            .wait("listening", READY_LIMIT, || async move {
                TcpStream::connect(("127.0.0.1", port)).await.map(|_| ()).context("connect")
            })
            .await
    }
}

fn configure(folder: &Path, options: &Options, port: u16) -> Result<()> {
    let mut config = json!({
        "version": "0.1",
        "log": { "accesslog": { "disabled": true }, "level": "warn" },
        "storage": { "filesystem": { "rootdirectory": folder.join("storage") }, "delete": { "enabled": true } },
        "http": { "addr": format!("127.0.0.1:{port}") },
    });
    if let Some((name, password)) = &options.htpasswd {
        let path = folder.join("htpasswd");
        let hash = bcrypt::hash(password, PASSWORD_COST).context("hash the password")?;
        // The registry knows this variant of bcrypt by its older letter only.
        let line = format!("{name}:{}\n", hash.replacen("$2b$", "$2y$", 1));
        fs::write(&path, line).with_context(|| format!("write {}", path.display()))?;
        config["auth"] = json!({ "htpasswd": { "realm": "evenkeel", "path": path } });
    }
    if let Some(Certificate { chain, key, .. }) = &options.certificate {
        let (chain_path, key_path) = (folder.join("certificate.pem"), folder.join("key.pem"));
        for (path, text) in [(&chain_path, chain), (&key_path, key)] {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        config["http"]["tls"] = json!({ "certificate": chain_path, "key": key_path });
        if let Some(authority) = &options.client_authority {
            let path = folder.join("clients.pem");
            fs::write(&path, authority).with_context(|| format!("write {}", path.display()))?;
            config["http"]["tls"]["clientcas"] = json!([path]);
        }
    }
    // JSON is YAML.
    fs::write(folder.join("config.yml"), config.to_string()).context("write the registry's configuration")
}

fn serve(folder: &Path) -> Result<Service> {
    let mut command = Command::new(host_packages::find("docker-registry")?);
    command.arg("serve").arg(folder.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
    Service::start("docker-registry", command, &folder.join("registry.log"))
}
