//! Which Nodes were in service, and when, from what each write made of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::Request;

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// A Node after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWritten {
    /// Its name.
    pub name: String,
    /// Its resource version: those of one kind grow with each write.
    pub version: u64,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Whether it is of the control plane.
    pub control_plane: bool,
}

impl NodeWritten {
    /// Absent if the answer was no Node.
    pub(super) fn read(answer: Value) -> Option<Self> {
        let node: Node = serde_json::from_value(answer).ok()?;
        let version = node.metadata.resource_version.as_ref()?.parse().ok()?;
        Self::of(node, version)
    }

    /// A Node as this version has it; absent if it has no name.
    pub fn of(node: Node, version: u64) -> Option<Self> {
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Some(Self {
            name: node.metadata.name?,
            version,
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            cordoned: node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            control_plane: node.metadata.labels.is_some_and(|labels| labels.contains_key(CONTROL_PLANE)),
        })
    }

    fn serves(&self) -> bool {
        self.ready && !self.cordoned
    }
}

/// What Nodes were in service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The most Nodes that were out of service at once.
    pub worst: usize,
    /// The same, of the control plane's.
    pub worst_control_plane: usize,
    /// Nodes that are cordoned at the end.
    pub cordoned: BTreeSet<String>,
    /// How often a Node went out of service.
    pub outages: usize,
    /// Nodes that there are at the end.
    pub nodes: usize,
}

/// What a write made of a Node.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The Node's name.
    pub name: &'a str,
    /// What it is after the write; nothing after its deletion.
    pub node: Option<&'a NodeWritten>,
    /// Whether it was before what is judged.
    pub before: bool,
}

impl Service {
    /// What changes, in their order, made of the Nodes.
    pub fn of<'a>(changes: impl Iterator<Item = Change<'a>>) -> Self {
        let mut service = Self::default();
        let mut nodes: BTreeMap<&str, &NodeWritten> = BTreeMap::new();
        let mut down: BTreeSet<&str> = BTreeSet::new();
        for Change { name, node, before } in changes {
            let was = nodes.get(name).is_some_and(|node| node.serves());
            match node {
                Some(node) => nodes.insert(name, node),
                None => nodes.remove(name),
            };
            if node.is_none_or(NodeWritten::serves) {
                down.remove(name);
            } else {
                down.insert(name);
            }
            if !before {
                service.outages += usize::from(was && down.contains(name));
                service.worst = service.worst.max(down.len());
                let controllers = down.iter().filter(|name| nodes[**name].control_plane).count();
                service.worst_control_plane = service.worst_control_plane.max(controllers);
            }
        }
        let cordoned = nodes.values().filter(|node| node.cordoned);
        service.cordoned = cordoned.map(|node| node.name.clone()).collect();
        service.nodes = nodes.len();
        service
    }

    pub(super) fn of_log(requests: &[Request], from: Timestamp) -> Self {
        let writes = in_order(requests);
        Self::of(writes.into_iter().map(|(request, node)| Change {
            name: &request.name,
            node,
            before: request.at < from,
        }))
    }
}

/// Writes to Nodes in the order in which the store took them: the log is in the order of the answers. A deletion, whose
/// answer has no version, comes after all that was answered before it.
fn in_order(requests: &[Request]) -> Vec<(&Request, Option<&NodeWritten>)> {
    let mut last = 0;
    let mut writes = Vec::new();
    for request in requests.iter().filter(|request| request.is_write()) {
        match &request.node {
            Some(node) => {
                last = last.max(node.version);
                writes.push((node.version, (request, Some(node))));
            }
            None if request.resource == "nodes" && request.verb == "delete" => {
                writes.push((last, (request, None)));
            }
            None => {}
        }
    }
    // Stable: a deletion stays behind the write whose version it was given.
    writes.sort_by_key(|(version, _)| *version);
    writes.into_iter().map(|(_, write)| write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, version: u64, ready: bool, cordoned: bool) -> Request {
        let node =
            NodeWritten { name: name.into(), version, ready, cordoned, control_plane: name.starts_with('c') };
        Request {
            user: "somebody".into(),
            token: String::new(),
            verb: "patch".into(),
            resource: "nodes".into(),
            name: name.into(),
            at: Timestamp::from_second(i64::try_from(version).unwrap()).unwrap(),
            code: 200,
            node: Some(node),
        }
    }

    fn deletion(name: &str, second: i64) -> Request {
        let at = Timestamp::from_second(second).unwrap();
        Request { verb: "delete".into(), node: None, at, ..write(name, 1, true, false) }
    }

    #[test]
    fn nodes_out_of_service_are_counted_in_the_order_of_the_store() {
        // The answers came in another order than the writes.
        let log = [
            write("a", 1, true, false),
            write("c", 2, true, false),
            write("a", 6, true, false),
            write("a", 3, true, true),
            write("c", 7, false, false),
            write("c", 8, true, true),
        ];
        let service = Service::of_log(&log, Timestamp::UNIX_EPOCH);
        assert_eq!((service.worst, service.worst_control_plane, service.outages), (1, 1, 2));
        assert_eq!(service.cordoned, BTreeSet::from(["c".to_owned()]));
        let together = [log[0].clone(), log[1].clone(), log[3].clone(), write("c", 4, false, false)];
        assert_eq!(Service::of_log(&together, Timestamp::UNIX_EPOCH).worst, 2);
    }

    #[test]
    fn what_was_before_does_not_count_and_a_node_that_is_gone_is_not_out_of_service() {
        let log = [write("a", 1, false, false), write("b", 2, false, true), deletion("b", 3)];
        let service = Service::of_log(&log, Timestamp::from_second(3).unwrap());
        assert_eq!((service.worst, service.nodes), (1, 1), "{service:?}");
        assert!(service.cordoned.is_empty());
    }
}
