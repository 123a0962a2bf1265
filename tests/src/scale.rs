//! One rollout over very many nodes, and what it took: of the clock, of the operator, and of the API server.
//!
//! The control plane and the operator are the real ones; the nodes are a [`Crowd`], whose agents stage, reboot and pass
//! their checks in no time, so that what is left is the time that the rollout itself takes.

mod cost;
mod figures;

pub use cost::{Cost, Processor};
pub use figures::{Figure, Figures};

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use evenkeel_crds::{ManagedOSImage, NodePlan};
use evenkeel_e2e::{
    process::Scratch,
    registry::{self, Registry},
};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    audit::Audit,
    cluster::Cluster,
    crowd::{Crowd, Times},
    fleet::REPOSITORY,
    operator::Operator,
    os_image::OsImage,
    rights,
};

const IMAGE: &str = "os";
const POLL: Duration = Duration::from_millis(100);
/// The operator has seen all nodes, and what their creation stirred is over.
const SETTLE: Duration = Duration::from_secs(3);
/// A rollout that takes longer than this for each node has stopped.
const NODE_LIMIT: Duration = Duration::from_secs(1);
const ROLLOUT_LIMIT: Duration = Duration::from_mins(2);

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// How many of them may be out of service at once; as many may stage.
    pub budget: usize,
    /// The operator's program.
    pub operator: PathBuf,
    /// How long the operator is looked at after the rollout.
    pub idle: Duration,
}

/// What was seen of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was run.
    pub options: Options,
    /// When the image object was applied.
    pub applied: (Instant, Timestamp),
    /// When the rollout was over.
    pub ended: Timestamp,
    /// What the machines saw.
    pub times: Times,
    /// What the operator took until the end of the rollout.
    pub cost: Cost,
    /// Time of processors that all took in the rollout.
    pub processor: Processor,
    /// Writes that the store took in the rollout, by anybody.
    pub revisions: u64,
    /// Bytes of the largest status that the image object had.
    pub status_bytes: usize,
    /// Plans at the end, and those of them with a turn that is not over.
    pub plans: (usize, usize),
    /// What was asked of the API server.
    pub audit: Audit,
}

/// Runs it.
pub async fn run(options: Options) -> Result<Run> {
    let scratch = Scratch::new("scale")?;
    let folder = scratch.path().to_owned();
    let registry_folder = folder.join("registry");
    let registry = Registry::start(&registry_folder, registry::Options::default());
    let (cluster, registry) = tokio::try_join!(Cluster::start(), registry)?;
    rights::apply(&cluster).await?;
    let first = OsImage::good("1").push(&registry, REPOSITORY).await?;
    let second = OsImage::good("2").push(&registry, REPOSITORY).await?;
    let client = cluster.client().await?;
    let crowd =
        Crowd::start(&client, options.nodes, &first, &rights::account(&client, "agent").await?).await?;
    let account = rights::account(&client, "operator").await?;
    let token = rights::token(&client, &account, None).await?;
    let kubeconfig = folder.join("operator.kubeconfig");
    fs::write(&kubeconfig, cluster.plane.kubeconfig_for(&token, &cluster.plane.url()))?;
    let operator = Operator::start_program("operator", &options.operator, &folder, &kubeconfig)?;
    operator.wait_ready().await?;
    sleep(SETTLE).await;
    let processor = || Processor::of(&cluster.plane, operator.pid());
    let (begin, before) = (revision(&client).await?, processor()?);
    let applied = (Instant::now(), Timestamp::now());
    apply(&client, &second.tagged, options.budget).await?;
    let status_bytes = follow(&client, &crowd, &options).await.with_context(|| operator.log())?;
    let (ended, end, cost) = (Timestamp::now(), revision(&client).await?, Cost::of(operator.pid())?);
    let processor = processor()?.since(&before);
    sleep(options.idle).await;
    let plans = Api::<NodePlan>::all(client.clone()).list(&ListParams::default()).await?;
    let open = plans.items.iter().filter(|plan| plan.spec.disruption.is_some()).count();
    let audit = cluster.audit()?;
    Ok(Run {
        options,
        applied,
        ended,
        times: crowd.times(),
        cost,
        processor,
        revisions: end - begin,
        status_bytes,
        plans: (plans.items.len(), open),
        audit,
    })
}

/// Applies the image object: drained by the usual rules, each turn as short as its steps let it be.
async fn apply(client: &Client, image: &str, budget: usize) -> Result<()> {
    let object = json!({
        "apiVersion": ManagedOSImage::api_version(&()),
        "kind": ManagedOSImage::kind(&()),
        "metadata": { "name": IMAGE },
        "spec": {
            "osImage": image,
            "pull": { "plainHttp": true },
            "rollout": { "maxUnavailable": budget, "maxStaging": budget, "soakSeconds": 0 },
            "reboot": { "delaySeconds": 0 },
        },
    });
    let images: Api<ManagedOSImage> = Api::all(client.clone());
    images.patch(IMAGE, &PatchParams::apply("a-user"), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Waits until the image object says that all is done; the size of its largest status.
async fn follow(client: &Client, crowd: &Crowd, options: &Options) -> Result<usize> {
    let nodes = u32::try_from(options.nodes)?;
    let end = Instant::now() + ROLLOUT_LIMIT + NODE_LIMIT * nodes;
    let images: Api<ManagedOSImage> = Api::all(client.clone());
    let mut largest = 0;
    loop {
        let status = images.get(IMAGE).await?.status.unwrap_or_default();
        largest = largest.max(serde_json::to_vec(&status)?.len());
        let finished = status.conditions.iter().any(|c| c.r#type == "Ready" && c.reason == "RolloutFinished");
        if finished && status.nodes.updated == i64::from(nodes) && status.nodes.updating == 0 {
            return Ok(largest);
        }
        if Instant::now() > end {
            bail!("the rollout did not end: {:?}\n{:?}", status, crowd.times().troubles);
        }
        sleep(POLL).await;
    }
}

/// The store's revision: it grows by one with each write.
async fn revision(client: &Client) -> Result<u64> {
    list_version(&Api::<ManagedOSImage>::all(client.clone())).await
}

async fn list_version<K>(api: &Api<K>) -> Result<u64>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = api.list(&ListParams::default()).await?;
    Ok(list.metadata.resource_version.context("a list has a version")?.parse()?)
}
