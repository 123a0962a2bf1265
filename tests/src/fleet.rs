//! A fleet: a control plane, a registry, the real operator, and model machines with the real agent.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use evenkeel_crds::ManagedOSImage;
use evenkeel_e2e::{
    process::Scratch,
    registry::{self, Pushed, Registry},
};
use futures::future::try_join_all;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    audit::Service,
    binaries::Binaries,
    cluster::Cluster,
    machine::{Machine, MachineOptions, kubelet},
    operator::{LEASE, Operator, Settings},
    os_image::OsImage,
    proxy::Proxy,
    rights, store,
    watch::{Watch, World},
};

/// Repository of the OS images.
pub const REPOSITORY: &str = "model/os";
const POLL: Duration = Duration::from_millis(100);
const START_LIMIT: Duration = Duration::from_mins(1);
/// An event follows what it tells within a look or two of the operator.
const EVENT_LIMIT: Duration = Duration::from_secs(20);

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// How many machines: `node-1`, `node-2`, …
    pub nodes: usize,
    /// How many of them, from the first, are of the control plane.
    pub control_plane_nodes: usize,
    /// Name and password that the registry wants.
    pub credentials: Option<(String, String)>,
    /// How much faster than ours the machines' time since boot runs.
    pub haste: u32,
    /// Whether the operator writes lifecycle conditions, and may.
    pub lifecycle_conditions: bool,
    /// For how long an operator's lease holds.
    pub lease_seconds: u16,
    /// What it begins with, when that is not what is here.
    pub programs: Option<Binaries>,
}

impl FleetOptions {
    /// So many workers.
    pub fn of(nodes: usize) -> Self {
        Self {
            nodes,
            control_plane_nodes: 0,
            credentials: None,
            haste: 1,
            lifecycle_conditions: false,
            lease_seconds: LEASE,
            programs: None,
        }
    }
}

/// A fleet that runs until it is dropped.
pub struct Fleet {
    /// Machines by the name of their node.
    pub machines: BTreeMap<String, Machine>,
    /// Operators, in the order of their start.
    pub operators: Vec<Operator>,
    /// The registry.
    pub registry: Registry,
    /// What everybody can see.
    pub watch: Watch,
    /// The image that was installed.
    pub installed: Pushed,
    /// A client with all rights.
    pub client: Client,
    /// The way from the operators to the API server.
    pub proxy: Proxy,
    /// What every operator is told.
    settings: Settings,
    /// What every machine begins with.
    agent: PathBuf,
    scratch: Scratch,
    /// The control plane.
    pub cluster: Cluster,
}

impl Fleet {
    /// Installs image version 1 on every machine, switches all on and starts one operator.
    pub async fn start(options: &FleetOptions) -> Result<Self> {
        let scratch = Scratch::new("fleet")?;
        let folder = scratch.path().to_owned();
        let registry_options =
            registry::Options { htpasswd: options.credentials.clone(), ..registry::Options::default() };
        let registry_folder = folder.join("registry");
        let registry = Registry::start(&registry_folder, registry_options);
        let (cluster, registry) = tokio::try_join!(Cluster::with_history(), registry)?;
        rights::apply(&cluster).await?;
        if options.lifecycle_conditions {
            rights::apply_with(&cluster, &["--set", "operator.lifecycleConditions=always"]).await?;
        }
        let installed = OsImage::good("1").push(&registry, REPOSITORY).await?;
        let client = cluster.client().await?;
        let docker_config = options
            .credentials
            .as_ref()
            .map(|(name, password)| write_docker_config(&folder, &registry.address(), name, password))
            .transpose()?;
        let programs = match &options.programs {
            Some(programs) => programs.clone(),
            None => Binaries::built().await?.clone(),
        };
        let mut fleet = Self {
            watch: Watch::start(&client),
            machines: BTreeMap::new(),
            operators: Vec::new(),
            registry,
            installed,
            client,
            proxy: Proxy::start(cluster.plane.port()).await?,
            settings: Settings {
                program: programs.operator,
                docker_config,
                lifecycle_conditions: options.lifecycle_conditions,
                lease_seconds: options.lease_seconds,
            },
            agent: programs.agent,
            scratch,
            cluster,
        };
        let agent = rights::account(&fleet.client, "agent").await?;
        let machines: Vec<MachineOptions> =
            (1..=options.nodes).map(|number| fleet.machine_options(number, options, &agent)).collect();
        // The older a node is the earlier it comes.
        for machine in &machines {
            kubelet::register(&fleet.client, machine).await?;
        }
        let machines = machines.into_iter().map(|machine| Machine::start(&fleet.cluster, machine));
        let machines = try_join_all(machines).await?;
        fleet.machines = machines.into_iter().map(|machine| (machine.name().to_owned(), machine)).collect();
        let all_serve = |world: &World| fleet.machines.keys().all(|node| world.serves(node));
        fleet.until("all nodes serve", START_LIMIT, all_serve).await?;
        fleet.watch.forget();
        fleet.add_operator().await?;
        Ok(fleet)
    }

    fn machine_options(&self, number: usize, options: &FleetOptions, agent: &str) -> MachineOptions {
        let name = format!("node-{number}");
        let mut labels = vec![("node".to_owned(), name.clone())];
        if number <= options.control_plane_nodes {
            labels.push(("node-role.kubernetes.io/control-plane".to_owned(), String::new()));
        }
        MachineOptions {
            folder: self.scratch.path().join(&name),
            name,
            image: self.installed.pinned.clone(),
            agent: self.agent.clone(),
            labels,
            docker_config: self.settings.docker_config.clone(),
            haste: options.haste,
            agent_account: agent.to_owned(),
        }
    }

    /// Starts one more operator, with a token of its own: so the API server's log tells replicas apart.
    pub async fn add_operator(&mut self) -> Result<()> {
        let name = format!("operator-{}", self.operators.len() + 1);
        let account = rights::account(&self.client, "operator").await?;
        let token = rights::token(&self.client, &account, None).await?;
        let url = format!("https://127.0.0.1:{}", self.proxy.port());
        let folder = self.scratch.path();
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        fs::write(&kubeconfig, self.cluster.plane.kubeconfig_for(&token, &url))?;
        let operator = Operator::start(&name, folder, &kubeconfig, self.settings.clone())?;
        self.operators.push(operator);
        Ok(())
    }

    /// Changes the password that operator and agents have for the registry.
    pub fn set_password(&self, password: &str) -> Result<()> {
        let (name, _) = self.registry.credentials().context("this registry wants no password")?;
        write_docker_config(self.scratch.path(), &self.registry.address(), name, password).map(|_| ())
    }

    /// Pushes an image.
    pub async fn publish(&self, image: &OsImage) -> Result<Pushed> {
        image.push(&self.registry, REPOSITORY).await
    }

    /// `kubectl apply`s a `ManagedOSImage` that wants `image`, with `more` in its spec.
    pub async fn want(&self, name: &str, image: &str, more: Value) -> Result<()> {
        let mut spec = json!({ "osImage": image, "pull": { "plainHttp": true } });
        merge(&mut spec, more);
        let object = json!({
            "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage", "metadata": { "name": name }, "spec": spec,
        });
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.cluster.kubectl_with(&arguments, &object.to_string()).await?;
        Ok(())
    }

    /// Deletes a `ManagedOSImage`, without waiting for its end.
    pub async fn unwant(&self, name: &str) -> Result<()> {
        Api::<ManagedOSImage>::all(self.client.clone())
            .delete(name, &kube::api::DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Waits until the world is as it should be; the error shows the world as it is.
    pub async fn until(&self, what: &str, limit: Duration, holds: impl Fn(&World) -> bool) -> Result<World> {
        let end = Instant::now() + limit;
        loop {
            let world = self.watch.world();
            if holds(&world) {
                return Ok(world);
            }
            let lost = self.machines.values().find_map(Machine::failure);
            if let Some(failure) = lost {
                bail!("{failure}\n{}", self.account());
            }
            if Instant::now() > end {
                bail!("not within {} s: {what}\n{}", limit.as_secs(), self.account());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until all nodes run a digest, kept, and serve.
    pub async fn until_all_run(&self, digest: &str, limit: Duration) -> Result<World> {
        let what = format!("all nodes run {digest}");
        let end = Instant::now() + limit;
        let all_run =
            |world: &World| self.machines.keys().all(|node| world.runs(node, digest) && world.serves(node));
        loop {
            let world = self.until(&what, end.saturating_duration_since(Instant::now()), all_run).await?;
            // Nodes and plans are watched each for itself: after an API server was away, a plan may be seen as it is and its
            // Node still as it was before its turn.
            if !self.cordoned().await?.iter().any(|node| self.machines.contains_key(node)) {
                return Ok(world);
            }
            sleep(POLL).await;
        }
    }

    /// What the store says of the machines' Nodes since somebody first wanted something: never more than `budget` out of service at
    /// once, each of them at least once, and no cordon left.
    pub async fn judge(&self, budget: usize) -> Result<Service> {
        let ours = |name: &str| self.machines.contains_key(name);
        let service = store::service(&self.cluster.plane.store(), ours).await?;
        let nodes = self.machines.len();
        ensure!(service.nodes == nodes && service.outages >= nodes, "the history is not whole: {service:?}");
        ensure!(service.worst <= budget && service.cordoned.is_empty(), "{service:?}");
        Ok(service)
    }

    /// Everything that a person would look at.
    pub fn account(&self) -> String {
        let mut parts = vec![self.watch.world().to_string()];
        parts.extend(self.operators.iter().map(Operator::log));
        let machines = self.machines.values();
        parts.extend(machines.map(|machine| format!("{:#?}\n{}", machine.boots(), machine.logs())));
        parts.join("\n")
    }

    /// Events on an object: reason and note.
    pub async fn events(&self, kind: &str, name: &str) -> Result<Vec<(String, String)>> {
        let all = Api::<KubeEvent>::all(self.client.clone()).list(&ListParams::default()).await?;
        let about = all.items.into_iter().filter(|event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|object| {
                object.kind.as_deref() == Some(kind) && object.name.as_deref() == Some(name)
            })
        });
        Ok(about.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect())
    }

    /// Waits for an event on an image object that has all these words, in its reason or its note.
    pub async fn until_event(&self, image: &str, words: &[&str]) -> Result<()> {
        let end = Instant::now() + EVENT_LIMIT;
        loop {
            let events = self.events("ManagedOSImage", image).await?;
            let has = |event: &(String, String), word: &str| event.0.contains(word) || event.1.contains(word);
            if events.iter().any(|event| words.iter().all(|word| has(event, word))) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("no event on {image} says {words:?}: {events:#?}");
            }
            sleep(POLL).await;
        }
    }

    /// Creates an object from JSON.
    pub async fn create<K>(&self, api: &Api<K>, object: Value) -> Result<K>
    where
        K: Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object)?;
        Ok(api.create(&PostParams::default(), &object).await?)
    }

    /// A machine by its node's name.
    pub fn machine(&self, node: &str) -> Result<&Machine> {
        self.machines.get(node).with_context(|| format!("there is no machine {node}"))
    }

    /// Names of the nodes whose cordon is in place.
    pub async fn cordoned(&self) -> Result<Vec<String>> {
        let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(self.client.clone());
        let all = nodes.list(&ListParams::default()).await?;
        let cordoned = |node: &k8s_openapi::api::core::v1::Node| {
            node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
        };
        Ok(all.items.iter().filter(|node| cordoned(node)).map(ResourceExt::name_any).collect())
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn write_docker_config(folder: &Path, registry: &str, name: &str, password: &str) -> Result<PathBuf> {
    let path = folder.join("docker-config.json");
    let config = json!({ "auths": { registry: { "username": name, "password": password } } });
    fs::write(&path, config.to_string())?;
    Ok(path)
}
