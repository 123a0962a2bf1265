//! The API server's audit log: who asked for what, and what became of each Node. A judge reads it who takes nobody's word.
//! It lacks writes whose answer was lost with the API server: where that may be, [`crate::store`] has them.

mod acting;
mod service;

pub use acting::Reigns;
pub use service::{Change, NodeWritten, Service};

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Every request, and of the writes to Nodes what the Node was after them.
pub const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: RequestResponse
  verbs: [create, update, patch, delete]
  resources:
  - group: ''
    resources: [nodes, nodes/status]
- level: Metadata
";

/// What the API server says of a token of a service account.
const TOKEN: &str = "authentication.kubernetes.io/credential-id";

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// For whom it was: the impersonated user, if there is one.
    pub user: String,
    /// Which of the user's tokens it came with, if tokens are told apart.
    pub token: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// `nodes`, `nodes/status`, …; empty when it was for no resource.
    pub resource: String,
    /// Name of the object, if it was for one.
    pub name: String,
    /// When it came.
    pub at: Timestamp,
    /// The HTTP status of the answer.
    pub code: u16,
    /// What the Node was after a successful write to it.
    pub node: Option<NodeWritten>,
}

impl Request {
    /// Whether it changed something, or may have: a write that changes nothing is not told apart.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
            && (200..300).contains(&self.code)
    }
}

/// The log, in the order in which requests ended.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// Every request; a watch is in it once, when it began.
    pub requests: Vec<Request>,
    /// Lines that cannot be read: a killed API server leaves one that is half written, and the next goes on in it.
    pub torn: usize,
}

impl Audit {
    /// Reads the log in a file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open the audit log {}", path.display()))?;
        let mut audit = Self::default();
        for line in BufReader::new(file).split(b'\n') {
            match serde_json::from_slice::<Line>(&line.context("read the audit log")?) {
                Ok(line) => audit.requests.extend(line.request()),
                Err(_) => audit.torn += 1,
            }
        }
        Ok(audit)
    }

    /// Requests for a user whose name ends so, from `from` on.
    pub fn of<'a>(&'a self, user: &'a str, from: Timestamp) -> impl Iterator<Item = &'a Request> {
        self.requests.iter().filter(move |request| request.at >= from && request.user.ends_with(user))
    }

    /// When the first object of this resource was written.
    pub fn first_write(&self, resource: &str) -> Option<Timestamp> {
        self.requests
            .iter()
            .filter(|request| request.is_write() && request.resource == resource)
            .map(|request| request.at)
            .min()
    }

    /// What Nodes were in service from `from` on.
    pub fn service(&self, from: Timestamp) -> Service {
        Service::of_log(&self.requests, from)
    }

    /// Which replica of the operator had the lease, and who acted without it.
    pub fn reigns(&self) -> Reigns {
        Reigns::of(&self.requests)
    }
}

/// How often each verb was used on each resource.
pub fn by_verb<'a>(requests: impl Iterator<Item = &'a Request>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    counts
}

/// <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
    request_received_timestamp: Timestamp,
    response_object: Option<Value>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn token(&self) -> String {
        self.extra.get(TOKEN).into_iter().flatten().next().cloned().unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Line {
    /// Absent for the end of a watch.
    fn request(self) -> Option<Request> {
        if (self.verb == "watch") != (self.stage == "ResponseStarted") {
            return None;
        }
        let object = self.object_ref.unwrap_or_default();
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            subresource => format!("{}/{subresource}", object.resource),
        };
        let mut request = Request {
            token: self.user.token(),
            user: self.impersonated_user.unwrap_or(self.user).username,
            verb: self.verb,
            resource,
            name: object.name,
            at: self.request_received_timestamp,
            code: self.response_status.map_or(0, |status| status.code),
            node: None,
        };
        if request.is_write() && matches!(request.resource.as_str(), "nodes" | "nodes/status") {
            request.node = self.response_object.and_then(NodeWritten::read);
            if let Some(node) = &request.node {
                request.name.clone_from(&node.name);
            }
        }
        Some(request)
    }
}
