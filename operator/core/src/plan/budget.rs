//! How many nodes may be out of service, and which of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{failure, fleet::Fleet};
use crate::{
    policy::Policy,
    report::Hold,
    snapshot::{NodeSeen, Snapshot},
};

/// What is taken of the budget, and what is left.
pub struct Budget<'a> {
    limit: usize,
    /// Nodes that are out of service for whatever reason, and those that failed.
    out: BTreeSet<&'a str>,
    /// How many of them failed.
    failed: usize,
    domains: BTreeMap<&'a str, Domain>,
    /// Nodes that do not serve, or will not: one on which the image failed serves again.
    away: BTreeSet<&'a str>,
    snapshot: &'a Snapshot,
}

#[derive(Default)]
struct Domain {
    size: usize,
    limit: Option<usize>,
    out: usize,
    /// How many of them failed.
    failed: usize,
}

impl<'a> Budget<'a> {
    pub fn of(policy: &Policy, fleet: &Fleet, snapshot: &'a Snapshot) -> Self {
        let failed = |name: &str| fleet.failures.is_final(name);
        let mut budget = Self::counting(policy, snapshot, |name, node| !node.available() || failed(name));
        for (_, node) in snapshot.nodes.iter().filter(|(name, node)| node.ours() && failed(name)) {
            budget.failed += 1;
            budget.domains.entry(&node.domain).or_default().failed += 1;
        }
        budget
    }

    /// The budget for going back: nodes that are down for other reasons do not keep the others from their cure.
    pub fn of_reverts(policy: &Policy, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self::counting(policy, snapshot, |_, node| {
            node.disruption().is_some()
                && failure::lost(policy, node, now).is_none()
                && !failure::stays_away_after_reset(policy, node, now)
        })
    }

    fn counting(policy: &Policy, snapshot: &'a Snapshot, is_out: impl Fn(&str, &NodeSeen) -> bool) -> Self {
        let mut budget = Self {
            limit: 0,
            out: BTreeSet::new(),
            failed: 0,
            domains: BTreeMap::new(),
            away: BTreeSet::new(),
            snapshot,
        };
        let mut size = 0;
        for (name, node) in &snapshot.nodes {
            let ours = node.ours();
            size += usize::from(ours);
            budget.domains.entry(&node.domain).or_default().size += usize::from(ours);
            // A node that left the selection in its turn is out of service all the same.
            let in_turn = node.disruption().is_some() && !node.gone;
            if (in_turn || ours) && is_out(name, node) {
                budget.count(name, node);
            }
            if (in_turn || ours) && !node.available() {
                budget.away.insert(name);
            }
        }
        budget.limit = policy.max_unavailable.of(size);
        for domain in budget.domains.values_mut() {
            domain.limit = policy.max_unavailable_per_domain.map(|limit| limit.of(domain.size));
        }
        budget
    }

    /// Whether failed nodes alone take all of it.
    pub fn is_used_up_by_failures(&self) -> bool {
        self.failed >= self.limit
    }

    /// Whether failed nodes alone take all of a domain's.
    pub fn is_used_up_in(&self, domain: &str) -> bool {
        let domain = self.domains.get(domain);
        domain.is_some_and(|domain| domain.limit.is_some_and(|limit| domain.failed >= limit))
    }

    /// Takes a place for a node.
    pub fn take(&mut self, name: &'a str, node: &'a NodeSeen) {
        self.count(name, node);
        self.away.insert(name);
    }

    fn count(&mut self, name: &'a str, node: &'a NodeSeen) {
        if self.out.insert(name) {
            self.domains.entry(&node.domain).or_default().out += 1;
        }
    }

    /// What keeps this node from taking a place. One that is out of service already needs none.
    pub fn hold(&self, name: &str, node: &NodeSeen) -> Option<Hold> {
        let itself = usize::from(self.out.contains(name));
        let unavailable = self.out.len() - itself;
        if unavailable >= self.limit {
            return Some(Hold::Budget { unavailable, failed: self.failed, budget: self.limit });
        }
        let domain = self.domains.get(node.domain.as_str())?;
        if let Some(limit) = domain.limit.filter(|limit| domain.out - itself >= *limit) {
            let domain_name = node.domain.clone();
            return Some(Hold::DomainBudget {
                domain: domain_name,
                unavailable: domain.out - itself,
                failed: domain.failed,
                budget: limit,
            });
        }
        // Members of etcd may be on nodes of their own.
        if !node.control_plane {
            return self.quorum(name);
        }
        let is_controller =
            |other: &&str| self.snapshot.nodes.get(*other).is_some_and(|node| node.control_plane);
        let others = self.away.iter().copied().filter(|other| *other != name && is_controller(other));
        let down = self.snapshot.other_controllers_down.iter().map(String::as_str);
        let peer = others.chain(down).next().map(|peer| Hold::ControlPlane(peer.to_owned()));
        peer.or_else(|| self.quorum(name))
    }

    /// Whether etcd would lose its quorum. Where there is none to lose, as with one or two members, all others have to be
    /// there.
    fn quorum(&self, name: &str) -> Option<Hold> {
        let members = self.snapshot.etcd.len();
        if !self.snapshot.etcd.contains_key(name) {
            return None;
        }
        let serves = |member: &&String| self.snapshot.etcd[*member] && !self.away.contains(member.as_str());
        let ready = self.snapshot.etcd.keys().filter(|member| *member != name).filter(serves).count();
        let needed = (members / 2 + 1).min(members - 1);
        (ready < needed).then_some(Hold::Quorum { ready, needed })
    }
}
