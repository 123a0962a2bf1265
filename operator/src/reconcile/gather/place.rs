//! Where a node stands in its rollout: domain, weight, age, step; and what somebody wants of its machine.

use evenkeel_crds::{
    names::{RESET, ROLLOUT_WEIGHT},
    rollout::Rollout,
};
use evenkeel_operator_core::{NodeSeen, Snapshot, wishes};
use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};

use crate::context::Context;

/// Marks all nodes of a snapshot. Gives what is not understood of the first annotation that is wrong.
pub fn mark(snapshot: &mut Snapshot, rollout: &Rollout, context: &Context) -> Option<String> {
    let selectors = selectors(rollout);
    let mut wrong = None;
    for (name, seen) in &mut snapshot.nodes {
        seen.runs_operator = context.own_node.as_ref() == Some(name);
        if let Some(node) = context.seen.nodes.get(name) {
            place(seen, &node, rollout, &selectors);
            let wish = node.annotations().get(RESET);
            seen.reset = wish.and_then(|text| wishes::wipe(text));
            if wish.is_some() && seen.reset.is_none() {
                wrong.get_or_insert_with(|| {
                    format!("the annotation {RESET} of node {name} is ignored: write what is lost, `state`, `oem` or `state,oem`")
                });
            }
        }
    }
    wrong
}

/// The selector of each step that has one; one that cannot be read matches nothing.
fn selectors(rollout: &Rollout) -> Vec<Option<Selector>> {
    let read = |step: &evenkeel_crds::rollout::Step| Selector::try_from(step.selector.clone()?).ok();
    rollout.steps.iter().map(read).collect()
}

fn place(seen: &mut NodeSeen, node: &Node, rollout: &Rollout, selectors: &[Option<Selector>]) {
    let labels = node.labels();
    seen.domain = rollout.topology_key.as_ref().and_then(|key| labels.get(key)).cloned().unwrap_or_default();
    seen.weight =
        node.annotations().get(ROLLOUT_WEIGHT).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    seen.created = node.creation_timestamp().map(|time| time.0);
    seen.step =
        selectors.iter().position(|selector| selector.as_ref().is_some_and(|one| one.matches(labels)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_and_annotations_place_a_node() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "zone": "a", "canary": "yes" }, "annotations": { ROLLOUT_WEIGHT: "-5" },
            },
        }))
        .unwrap();
        let rollout: Rollout = serde_json::from_value(json!({
            "topologyKey": "zone",
            "steps": [{ "nodes": 1 }, { "selector": { "matchLabels": { "canary": "yes" } } }],
        }))
        .unwrap();
        let mut seen = NodeSeen::default();
        place(&mut seen, &node, &rollout, &selectors(&rollout));
        assert_eq!((seen.domain.as_str(), seen.weight, seen.step), ("a", -5, Some(1)));
        assert_eq!(seen.created.unwrap().to_string(), "2026-01-01T00:00:00Z");
        let mut bare = NodeSeen::default();
        place(&mut bare, &Node::default(), &rollout, &selectors(&rollout));
        assert_eq!((bare.domain.as_str(), bare.weight, bare.step), ("", 0, None));
    }
}
