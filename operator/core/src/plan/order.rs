//! Whose turn comes first.

use std::collections::BTreeMap;

use evenkeel_crds::rollout::Order;
use jiff::Timestamp;

use crate::{policy::Policy, snapshot::NodeSeen};

/// Sorts nodes: the operator's own last; control plane first or last; with one domain at a time by domain, the one with the
/// heaviest node first; then by weight, domain, age and name.
pub fn sort<'a>(policy: &Policy, nodes: &mut [(&'a String, &'a NodeSeen)]) {
    let mut heaviest: BTreeMap<&'a str, i32> = BTreeMap::new();
    if policy.one_domain_at_a_time {
        for (_, node) in nodes.iter() {
            let weight = heaviest.entry(&node.domain).or_insert(i32::MIN);
            *weight = node.weight.max(*weight);
        }
    }
    nodes.sort_by_cached_key(|&(name, node)| {
        let domain = node.domain.as_str();
        let role = node.control_plane == (policy.order == Order::ControlPlaneFirst);
        let whole = heaviest.get(domain).map(|weight| (lighter(*weight), domain));
        let age = node.created.unwrap_or(Timestamp::MAX);
        (node.runs_operator, !role, whole, lighter(node.weight), domain, age, name)
    });
}

fn lighter(weight: i32) -> i64 {
    -i64::from(weight)
}
