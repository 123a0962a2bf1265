//! Very many machines in one process: the agent's own update machine and a kubelet for each, over hosts that are a few facts
//! and answer at once. One client writes for all of them, each time as the agent of the one node.

mod account;
mod host;
mod member;
mod node;

pub use account::{Account, Times};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use evenkeel_crds::NodePlan;
use evenkeel_e2e::registry::Pushed;
use futures::{StreamExt as _, TryStreamExt as _, pin_mut, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use host::Host;
use member::Member;

/// Requests of the crowd at once: as many as keep the API server busy, and no more connections than it likes to have.
const REQUESTS: usize = 16;

/// Machines that run until this is dropped.
pub struct Crowd {
    account: Account,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Registers so many nodes, all of which run `installed`, and starts their agents as the service account of this
    /// name.
    pub async fn start(client: &Client, nodes: usize, installed: &Pushed, agent: &str) -> Result<Self> {
        let hosts: BTreeMap<String, Host> =
            (1..=nodes).map(|number| (format!("node-{number:05}"), Host::installed(installed))).collect();
        let api: Api<Node> = Api::all(client.clone());
        stream::iter(hosts.iter().enumerate())
            .map(|(number, (name, host))| register(&api, name, number, host.boot_id()))
            .buffer_unordered(REQUESTS)
            .try_collect::<()>()
            .await?;
        let account = Account::default();
        let permits = Arc::new(Semaphore::new(REQUESTS));
        let mut tasks = JoinSet::new();
        let mut plans = BTreeMap::new();
        for (name, host) in hosts {
            let (sender, seen) = watch::channel(None);
            plans.insert(name.clone(), sender);
            let member = Member::new(client.clone(), name, agent, host, seen, account.clone(), &permits);
            tasks.spawn(member.run());
        }
        tasks.spawn(tell(Api::all(client.clone()), plans));
        Ok(Self { account, _tasks: tasks })
    }

    /// What happened so far.
    pub fn times(&self) -> Times {
        self.account.times()
    }
}

async fn register(nodes: &Api<Node>, name: &str, number: usize, boot_id: &str) -> Result<()> {
    nodes.create(&PostParams::default(), &node::describe(name, number, boot_id)?).await?;
    Ok(())
}

/// Shows each member its plan.
async fn tell(api: Api<NodePlan>, plans: BTreeMap<String, watch::Sender<Option<Arc<NodePlan>>>>) {
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(stream);
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        let (name, plan) = match event {
            Ok(watcher::Event::Apply(plan)) => (plan.name_any(), Some(Arc::new(plan))),
            Ok(watcher::Event::InitApply(plan)) => {
                listed.insert(plan.name_any());
                (plan.name_any(), Some(Arc::new(plan)))
            }
            Ok(watcher::Event::Delete(plan)) => (plan.name_any(), None),
            Ok(watcher::Event::InitDone) => {
                // What the list lacks was deleted meanwhile.
                for (_, sender) in plans.iter().filter(|(name, _)| !listed.contains(*name)) {
                    sender.send_if_modified(|plan| plan.take().is_some());
                }
                continue;
            }
            // An API server that is away comes back.
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Err(_) => continue,
        };
        if let Some(sender) = plans.get(&name) {
            sender.send_replace(plan);
        }
    }
}
