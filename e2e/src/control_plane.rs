//! A control plane on loopback ports: etcd, the API server, and what is wanted of the rest.

mod certificates;
mod identity;
mod programs;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    process::{Port, Service},
    progress,
    tools::{Tool, Tools},
};
use certificates::Certificates;
pub use identity::Identity;

/// An API server answers some seconds after its start; on a busy machine it takes several times as long.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// What is started, and who may come in.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for data, logs, keys and the kubeconfig. The owner removes it.
    pub folder: PathBuf,
    /// Nodes that get a token as a kubelet has one: `system:node:NAME` in group `system:nodes`.
    pub nodes: Vec<String>,
    /// Names and addresses of the API server besides those of loopback, for its certificate.
    pub extra_names: Vec<String>,
    /// The controllers to run, as `kube-controller-manager --controllers` has it; absent: none.
    pub controllers: Option<String>,
    /// Whether to run the scheduler.
    pub scheduler: bool,
    /// How long a node may be silent before it counts as not ready.
    pub node_grace_period: Duration,
    /// What the API server writes into its audit log, as an `audit.k8s.io/v1` `Policy`; absent: there is none.
    pub audit_policy: Option<String>,
    /// Whether the store keeps every version of every object, as JSON, for [`ControlPlane::store`] to be read.
    pub keep_history: bool,
}

impl Options {
    /// etcd and the API server only.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            nodes: Vec::new(),
            extra_names: Vec::new(),
            controllers: None,
            scheduler: false,
            // Kubernetes' own default; a machine under emulation may well be silent for a while.
            node_grace_period: Duration::from_secs(40),
            audit_policy: None,
            keep_history: false,
        }
    }

    /// All of it, as in a cluster.
    pub fn whole(folder: impl Into<PathBuf>) -> Self {
        Self { controllers: Some("*".to_owned()), scheduler: true, ..Self::new(folder) }
    }
}

/// A running control plane. It ends when this is dropped.
pub struct ControlPlane {
    tools: Tools,
    options: Options,
    port: Port,
    etcd_port: u16,
    certificates: Certificates,
    admin: Identity,
    nodes: Vec<Identity>,
    client: Client,
    // The API server goes first: without etcd it would complain for as long as it lives.
    api_server: Service,
    others: Vec<Service>,
    etcd: Service,
    _etcd_ports: [Port; 2],
}

impl ControlPlane {
    /// Starts it and waits until it is ready.
    pub async fn start(tools: &Tools, options: &Options) -> Result<Self> {
        progress::step("start a control plane");
        let folder = &options.folder;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let etcd_ports = [Port::free()?, Port::free()?];
        let etcd_port = etcd_ports[0].number();
        let etcd = programs::etcd(&tools.path(Tool::Etcd), folder, etcd_port, etcd_ports[1].number())?;
        let port = Port::free()?;
        let certificates = Certificates::make(&folder.join("pki"), &options.extra_names)?;
        let admin = Identity::admin();
        let nodes: Vec<Identity> = options.nodes.iter().map(|name| Identity::node(name)).collect();
        identity::write_tokens(&folder.join("tokens.csv"), std::iter::once(&admin).chain(&nodes))?;
        let url = format!("https://127.0.0.1:{}", port.number());
        let kubeconfig = certificates.kubeconfig(&admin.token, &url);
        fs::write(folder.join("kubeconfig"), &kubeconfig).context("write the kubeconfig")?;
        if let Some(policy) = &options.audit_policy {
            fs::write(folder.join(programs::AUDIT_POLICY), policy).context("write the audit policy")?;
        }
        let api_server =
            programs::api_server(&tools.path(Tool::KubeApiserver), options, port.number(), etcd_port)?;
        let mut plane = Self {
            tools: tools.clone(),
            options: options.clone(),
            port,
            etcd_port,
            client: client(&kubeconfig).await?,
            certificates,
            admin,
            nodes,
            api_server,
            others: Vec::new(),
            etcd,
            _etcd_ports: etcd_ports,
        };
        plane.wait_ready().await?;
        plane.start_others().await?;
        Ok(plane)
    }

    async fn start_others(&mut self) -> Result<()> {
        let folder = self.options.folder.clone();
        if let Some(controllers) = self.options.controllers.clone() {
            let program = self.tools.path(Tool::KubeControllerManager);
            let grace = self.options.node_grace_period;
            let mut service = programs::controller_manager(&program, &folder, &controllers, grace)?;
            let client = self.client.clone();
            service.wait("at work", READY_LIMIT, || programs::default_account(client.clone())).await?;
            self.others.push(service);
        }
        if self.options.scheduler {
            self.others.push(programs::scheduler(&self.tools.path(Tool::KubeScheduler), &folder)?);
        }
        Ok(())
    }

    /// Waits until the API server says that it is ready.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let client = self.client.clone();
        self.api_server.wait("ready", READY_LIMIT, || ready(client.clone())).await
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client for whom a token makes.
    pub async fn client_for(&self, token: &str) -> Result<Client> {
        client(&self.kubeconfig_for(token, &self.url())).await
    }

    /// The API server's address on this machine.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    /// The API server's port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The certificate that the API server's is signed with.
    pub fn ca_pem(&self) -> &str {
        &self.certificates.ca_pem
    }

    /// The token with all rights.
    pub fn admin_token(&self) -> &str {
        &self.admin.token
    }

    /// The token of a node's kubelet.
    pub fn node_token(&self, node: &str) -> Result<&str> {
        let user = Identity::node_user(node);
        let identity = self.nodes.iter().find(|identity| identity.user == user);
        identity
            .map(|identity| identity.token.as_str())
            .with_context(|| format!("node {node} was not announced"))
    }

    /// File of a kubeconfig with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.options.folder.join("kubeconfig")
    }

    /// Text of a kubeconfig with a token, for somebody who reaches the API server at `server_url`.
    pub fn kubeconfig_for(&self, token: &str, server_url: &str) -> String {
        self.certificates.kubeconfig(token, server_url)
    }

    /// The folder with data and logs.
    pub fn folder(&self) -> &Path {
        &self.options.folder
    }

    /// The file of the audit log, one JSON object per line; see [`Options::audit_policy`].
    pub fn audit_log(&self) -> PathBuf {
        self.options.folder.join(programs::AUDIT_LOG)
    }

    /// The programs that it was started from.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// etcd's address on this machine.
    pub fn store(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd_port)
    }

    /// Has etcd stand still: whoever asks it waits.
    pub fn pause_etcd(&self) {
        self.etcd.pause();
    }

    /// Has etcd go on.
    pub fn resume_etcd(&self) {
        self.etcd.resume();
    }

    /// The API server's process.
    pub fn api_server_pid(&self) -> u32 {
        self.api_server.pid()
    }

    /// etcd's process.
    pub fn etcd_pid(&self) -> u32 {
        self.etcd.pid()
    }

    /// The processes of controller manager and scheduler, as far as they run.
    pub fn other_pids(&self) -> impl Iterator<Item = u32> {
        self.others.iter().map(Service::pid)
    }

    /// SIGKILL to the API server.
    pub fn kill_api_server(&mut self) {
        self.api_server.kill();
    }

    /// Starts the API server again, on the same port with the same data, and waits until it is ready.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        self.api_server.kill();
        let program = self.tools.path(Tool::KubeApiserver);
        self.api_server = programs::api_server(&program, &self.options, self.port.number(), self.etcd_port)?;
        self.wait_ready().await
    }
}

async fn client(kubeconfig: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).context("read our own kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn ready(client: Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new()).context("a constant request is valid")?;
    let answer = client.request_text(request).await?;
    ensure!(answer == "ok", "/readyz says: {answer}");
    Ok(())
}
