//! Whose turn comes first.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_crds::rollout::Order;
use jiff::Timestamp;

use super::fleet::updated;
use crate::{
    policy::Policy,
    snapshot::{NodeSeen, Snapshot},
};

/// Sorts nodes: the operator's own last; control plane first or last; with one domain at a time by domain, one that was begun
/// first, then the one with the heaviest node; then by weight, domain, age and name.
pub fn sort<'a>(policy: &Policy, snapshot: &'a Snapshot, nodes: &mut [(&'a String, &'a NodeSeen)]) {
    let mut heaviest: BTreeMap<&'a str, i32> = BTreeMap::new();
    let mut begun: BTreeSet<&'a str> = BTreeSet::new();
    if policy.one_domain_at_a_time {
        for (_, node) in nodes.iter() {
            let weight = heaviest.entry(&node.domain).or_insert(i32::MIN);
            *weight = node.weight.max(*weight);
        }
        let done = snapshot.nodes.values().filter(|node| node.ours() && updated(policy, node));
        begun.extend(done.map(|node| node.domain.as_str()));
    }
    nodes.sort_by_cached_key(|&(name, node)| {
        let domain = node.domain.as_str();
        let role = node.control_plane == (policy.order == Order::ControlPlaneFirst);
        let whole = heaviest.get(domain).map(|weight| (!begun.contains(domain), lighter(*weight), domain));
        let age = node.created.unwrap_or(Timestamp::MAX);
        (node.runs_operator, !role, whole, lighter(node.weight), domain, age, name)
    });
}

fn lighter(weight: i32) -> i64 {
    -i64::from(weight)
}
