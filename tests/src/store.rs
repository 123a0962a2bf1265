//! The store's own history: every version that an object had, whoever got an answer to its write.
//!
//! The API server's log lacks a write whose answer was lost, as when the server is killed or the store stands still: such a
//! write may have been done or not. The store knows. It must keep its history, as [`crate::cluster::Cluster::with_history`]
//! has it do.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::json;

use crate::audit::{Change, NodeWritten, Service};

const NODES: &str = "/registry/minions/";
const IMAGES: &str = "/registry/evenkeel.dev/managedosimages/";

/// What these Nodes were in service since the first image object was made. One that is gone by now is not looked at.
pub async fn service(store: &str, looked_at: impl Fn(&str) -> bool) -> Result<Service> {
    let store = Store::at(store)?;
    let images = store.newest(IMAGES).await?;
    let begin = images.iter().map(|image| image.create_revision).min().context("nobody wanted anything")?;
    let mut nodes = Vec::new();
    for newest in store.newest(NODES).await? {
        if !looked_at(&newest.node()?.name) {
            continue;
        }
        nodes.extend(store.versions(newest).await?);
    }
    nodes.sort_by_key(|node| node.version);
    Ok(Service::of(nodes.iter().map(|node| Change {
        name: &node.name,
        node: Some(node),
        before: node.version < begin,
    })))
}

/// etcd's gateway: <https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/>
struct Store(Client);

impl Store {
    fn at(url: &str) -> Result<Self> {
        Ok(Self(Client::try_from(Config::new(url.parse()?))?))
    }

    /// The objects whose key begins so.
    async fn newest(&self, prefix: &str) -> Result<Vec<Kept>> {
        // etcd's own way: up to the first key that does not begin so.
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("an empty prefix")? += 1;
        let ask = json!({ "key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end) });
        self.range(&ask).await
    }

    /// A Node that is now so, and what it was before, newest first.
    async fn versions(&self, newest: Kept) -> Result<Vec<NodeWritten>> {
        let mut versions = Vec::new();
        let mut next = Some(newest);
        while let Some(kept) = next {
            versions.push(kept.node()?);
            if kept.mod_revision == kept.create_revision {
                break;
            }
            let before = (kept.mod_revision - 1).to_string();
            next = self.range(&json!({ "key": kept.key, "revision": before })).await?.pop();
            ensure!(next.is_some(), "the store has forgotten what a Node was before revision {before}");
        }
        Ok(versions)
    }

    async fn range(&self, ask: &serde_json::Value) -> Result<Vec<Kept>> {
        let request = Request::post("/v3/kv/range").body(serde_json::to_vec(ask)?)?;
        let answer: Range = self.0.request(request).await.context("ask etcd")?;
        Ok(answer.kvs)
    }
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Kept>,
}

/// An object as the store has it. In etcd's JSON numbers are texts.
#[derive(Deserialize)]
struct Kept {
    key: String,
    value: String,
    #[serde(deserialize_with = "number")]
    create_revision: u64,
    #[serde(deserialize_with = "number")]
    mod_revision: u64,
}

impl Kept {
    fn node(&self) -> Result<NodeWritten> {
        let node: Node = serde_json::from_slice(&STANDARD.decode(&self.value)?)
            .context("the store does not keep Nodes as JSON")?;
        NodeWritten::of(node, self.mod_revision).context("a Node without a name")
    }
}

fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}
