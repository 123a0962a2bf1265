//! Where a node stands in its rollout: domain, weight, age, step; and what somebody wants of its machine.

use evenkeel_crds::{
    names::{RESET, ROLLOUT_WEIGHT},
    node_plan::Wipe,
    rollout::{Rollout, Step},
};
use evenkeel_operator_core::{NodeSeen, wishes};
use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};

/// What a rollout says of places.
pub struct Places<'a> {
    topology_key: Option<&'a String>,
    /// The selector of each step that has one; one that cannot be read matches nothing.
    selectors: Vec<Option<Selector>>,
}

impl<'a> Places<'a> {
    pub fn of(rollout: &'a Rollout) -> Self {
        let read = |step: &Step| Selector::try_from(step.selector.clone()?).ok();
        Self {
            topology_key: rollout.topology_key.as_ref(),
            selectors: rollout.steps.iter().map(read).collect(),
        }
    }

    /// Places a node.
    pub fn place(&self, seen: &mut NodeSeen, node: &Node) {
        let labels = node.labels();
        let matches = |selector: &Option<Selector>| selector.as_ref().is_some_and(|one| one.matches(labels));
        seen.domain = self.topology_key.and_then(|key| labels.get(key)).cloned().unwrap_or_default();
        seen.weight =
            node.annotations().get(ROLLOUT_WEIGHT).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        seen.created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        seen.step = self.selectors.iter().position(matches);
    }
}

/// What somebody wants the node's machine to lose, or how that is to be written.
pub fn wipe(node: &Node) -> Result<Option<Wipe>, String> {
    let Some(text) = node.annotations().get(RESET) else { return Ok(None) };
    wishes::wipe(text).map(Some).ok_or_else(|| {
        let name = node.name_any();
        format!("the annotation {RESET} of node {name} is ignored: write what is lost, `state`, `oem` or `state,oem`")
    })
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
        Places::of(&rollout).place(&mut seen, &node);
        assert_eq!((seen.domain.as_str(), seen.weight, seen.step), ("a", -5, Some(1)));
        assert_eq!(seen.created.unwrap().to_string(), "2026-01-01T00:00:00Z");
        let mut bare = NodeSeen::default();
        Places::of(&rollout).place(&mut bare, &Node::default());
        assert_eq!((bare.domain.as_str(), bare.weight, bare.step), ("", 0, None));
    }
}
