//! One real control plane for all tests of a test binary, with Evenkeel's API types in it.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use evenkeel_e2e::{
    control_plane::{ControlPlane, Options},
    process::Scratch,
    tools::{self, Tool, Tools},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use tokio::{process::Command, sync::OnceCell, time::sleep};

use crate::{
    audit::{self, Audit},
    root,
};

const FIELD_MANAGER: &str = "evenkeel-tests";
/// New types are served a moment after they were accepted.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(30);

/// All controllers but the one that takes nodes without a kubelet for dead, and the one that writes on each Node how long its
/// kubelet may keep Secrets: that goes by the size of the fleet, which grows within seconds here, and it would catch up in the
/// midst of a rollout.
const CONTROLLERS: &str = "*,-node-lifecycle-controller,-ttl-controller";

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// A control plane with the API types.
pub struct Cluster {
    /// The control plane.
    pub plane: ControlPlane,
    scratch: Scratch,
}

impl Cluster {
    /// The one that the tests of a binary share: names in it must be unique.
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(Self::start).await
    }

    /// One for a test alone, which may do to it what it likes.
    pub async fn start() -> Result<Self> {
        Self::start_with(false).await
    }

    /// The same, with a store that keeps every version of every object.
    pub async fn with_history() -> Result<Self> {
        Self::start_with(true).await
    }

    async fn start_with(keep_history: bool) -> Result<Self> {
        let scratch = Scratch::new("cluster")?;
        let options = Options {
            controllers: Some(CONTROLLERS.to_owned()),
            audit_policy: Some(audit::POLICY.to_owned()),
            keep_history,
            ..Options::new(scratch.path().join("control-plane"))
        };
        let plane = ControlPlane::start(&tools().await?, &options).await?;
        apply_definitions(plane.client()).await?;
        Ok(Self { plane, scratch })
    }

    /// A client of its own for each test: connections belong to the test's runtime and end with it.
    pub async fn client(&self) -> Result<Client> {
        self.plane.client_for(self.plane.admin_token()).await
    }

    /// Runs kubectl with all rights; what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "").await
    }

    /// The same, with something on its standard input.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.plane.tools().path(Tool::Kubectl));
        command.arg("--kubeconfig").arg(self.plane.kubeconfig()).args(arguments);
        // What it found out about the API server is nobody else's.
        command.arg("--cache-dir").arg(self.scratch.path().join("kubectl"));
        run(command, input).await
    }

    /// Runs helm with all rights; what it printed.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.plane.tools().path(Tool::Helm));
        command.args(arguments).env("KUBECONFIG", self.plane.kubeconfig());
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.scratch.path().join("helm"));
        }
        run(command, "").await
    }

    /// What was asked of the API server so far.
    pub fn audit(&self) -> Result<Audit> {
        Audit::read(&self.plane.audit_log())
    }

    /// A folder that goes with the cluster.
    pub fn folder(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }
}

async fn tools() -> Result<Tools> {
    let tools = [Tool::Etcd, Tool::KubeApiserver, Tool::KubeControllerManager, Tool::Kubectl, Tool::Helm];
    tools::ensure(&tools).await
}

async fn run(mut command: Command, input: &str) -> Result<String> {
    use tokio::io::AsyncWriteExt as _;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("start a program")?;
    let mut stdin = child.stdin.take().context("the program has a standard input")?;
    stdin.write_all(input.as_bytes()).await.context("write to a program")?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}{err}");
    Ok(out.into_owned())
}

/// Applies the chart of the API types, which has no placeholders, and waits until they are served.
async fn apply_definitions(client: Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let mut names = Vec::new();
    for file in fs::read_dir(root().join("charts/evenkeel-crds/templates"))? {
        let path = file?.path();
        let text = fs::read_to_string(&path)?;
        let definition: CustomResourceDefinition =
            serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        let name = definition.name_any();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        definitions.patch(&name, &params, &Patch::Apply(&definition)).await?;
        names.push(name);
    }
    ensure!(names.len() == 4, "the chart has four kinds: {names:?}");
    let end = tokio::time::Instant::now() + ESTABLISHED_LIMIT;
    for name in names {
        while !established(&definitions.get(&name).await?) {
            if tokio::time::Instant::now() > end {
                bail!("{name} is not served");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}
