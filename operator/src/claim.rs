//! Which image object has a node when several select it.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_crds::ManagedOSImage;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{
    ResourceExt as _,
    core::{ParseExpressionError, Selector, SelectorExt as _},
};

use crate::guarded::Guarded;

/// One image object, as far as it matters for who has what.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What it selects; nothing while it is being deleted or when its selector cannot be read.
    pub selector: Option<Selector>,
    /// Whether it cannot be read what it selects: then it is what it has.
    pub keeps: bool,
}

impl Claimant {
    /// An image object's claim.
    pub fn of(image: &ManagedOSImage) -> Self {
        let deleting = image.metadata.deletion_timestamp.is_some();
        let selector = selector(image).ok();
        Self {
            name: image.name_any(),
            uid: image.uid().unwrap_or_default(),
            created: image.metadata.creation_timestamp.as_ref().map(|time| time.0),
            keeps: selector.is_none() && !deleting,
            selector: selector.filter(|_| !deleting),
        }
    }

    /// The claim of an object of which nothing but its metadata can be read.
    fn unreadable(metadata: &ObjectMeta) -> Self {
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            selector: None,
            keeps: metadata.deletion_timestamp.is_none(),
        }
    }

    /// The claims of all image objects. One that this version cannot read keeps its nodes: a younger one would take them
    /// in the middle of their turns.
    pub fn of_all(images: &[Arc<Guarded<ManagedOSImage>>]) -> Vec<Self> {
        let of = |image: &Arc<Guarded<ManagedOSImage>>| match &image.0 {
            Ok(image) => Self::of(image),
            Err(invalid) => Self::unreadable(&invalid.metadata),
        };
        images.iter().map(of).collect()
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// The selector of an image object; an absent one selects every node.
pub fn selector(image: &ManagedOSImage) -> Result<Selector, ParseExpressionError> {
    Selector::try_from(image.spec.node_selector.clone().unwrap_or_default())
}

/// What one image object is to one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Whether its selector matches.
    pub selected: bool,
    /// Whether the node's plan is its own.
    pub plan_is_ours: bool,
    /// The image object that has the node instead.
    pub other: Option<String>,
}

/// What `me` is to a node with these labels and a plan with this metadata: the oldest that selects a node shall have it,
/// and gets it once the one that has it has let go.
pub fn claim(
    me: &Claimant,
    all: &[Claimant],
    labels: &BTreeMap<String, String>,
    plan: Option<&ObjectMeta>,
) -> Claim {
    let owner = plan.and_then(|plan| {
        let owns = |uid: &String| plan.owner_references.iter().flatten().any(|owner| owner.uid == *uid);
        all.iter().find(|image| owns(&image.uid))
    });
    let rightful = all
        .iter()
        .filter(|image| image.selects(labels))
        .min_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
    let is_me = |image: &&Claimant| image.uid == me.uid;
    let plan_is_ours = match owner {
        Some(owner) => is_me(&owner),
        // A plan that nobody owns goes with the node.
        None => plan.is_some() && rightful.is_some_and(|rightful| is_me(&rightful)),
    };
    if me.keeps && plan_is_ours {
        return Claim { selected: true, plan_is_ours, other: None };
    }
    let other = rightful.filter(|image| !is_me(image)).or(owner.filter(|image| !is_me(image)));
    Claim { selected: me.selects(labels), plan_is_ours, other: other.map(|image| image.name.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn image(name: &str, second: i64, labels: &[(&'static str, &'static str)]) -> Claimant {
        Claimant {
            name: name.into(),
            uid: format!("uid-{name}"),
            created: Timestamp::from_second(second).ok(),
            selector: Some(labels.iter().copied().collect()),
            keeps: false,
        }
    }

    fn plan_of(name: &str) -> ObjectMeta {
        let owner = OwnerReference { uid: format!("uid-{name}"), ..OwnerReference::default() };
        ObjectMeta { owner_references: Some(vec![owner]), ..ObjectMeta::default() }
    }

    #[test]
    fn the_older_has_the_node_and_the_name_decides_a_tie() {
        let all = [image("b", 1, &[]), image("a", 2, &[]), image("c", 1, &[])];
        let labels = BTreeMap::new();
        let of = |me: &Claimant| claim(me, &all, &labels, None).other;
        assert_eq!(of(&all[0]), None);
        assert_eq!(of(&all[1]).as_deref(), Some("b"));
        assert_eq!(of(&all[2]).as_deref(), Some("b"));
    }

    #[test]
    fn the_older_waits_until_the_younger_has_let_go() {
        let all = [image("old", 1, &[]), image("young", 2, &[])];
        let labels = BTreeMap::new();
        let plan = plan_of("young");
        let young = claim(&all[1], &all, &labels, Some(&plan));
        assert_eq!(young, Claim { selected: true, plan_is_ours: true, other: Some("old".into()) });
        let old = claim(&all[0], &all, &labels, Some(&plan));
        assert_eq!(old, Claim { selected: true, plan_is_ours: false, other: Some("young".into()) });
    }

    #[test]
    fn an_image_that_is_deleted_keeps_its_plans_and_claims_nothing() {
        let mut gone = image("gone", 1, &[]);
        gone.selector = None;
        let all = [gone, image("next", 2, &[])];
        let labels = BTreeMap::new();
        assert_eq!(claim(&all[1], &all, &labels, None).other, None);
        assert!(claim(&all[0], &all, &labels, Some(&plan_of("gone"))).plan_is_ours);
        assert_eq!(claim(&all[1], &all, &labels, Some(&plan_of("gone"))).other.as_deref(), Some("gone"));
    }

    #[test]
    fn an_image_whose_selector_cannot_be_read_keeps_what_it_has_and_gets_nothing() {
        let wrong = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "old", "uid": "uid-old" },
            "spec": { "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } },
        }));
        let all = [Claimant::of(&wrong.unwrap()), image("young", 2, &[])];
        let (labels, plan) = (BTreeMap::new(), plan_of("old"));
        let kept = Claim { selected: true, plan_is_ours: true, other: None };
        assert_eq!(claim(&all[0], &all, &labels, Some(&plan)), kept);
        assert_eq!(claim(&all[1], &all, &labels, Some(&plan)).other.as_deref(), Some("old"));
        assert!(!claim(&all[0], &all, &labels, None).selected);
    }

    #[test]
    fn an_image_that_cannot_be_read_keeps_its_nodes_from_a_younger_one() {
        let image = |name: &str, until: &str| -> Arc<Guarded<ManagedOSImage>> {
            let pauses = serde_json::json!([{ "owner": "me", "until": until }]);
            let value = serde_json::json!({
                "apiVersion": "evenkeel.dev/v1alpha1", "kind": "ManagedOSImage",
                "metadata": { "name": name, "uid": format!("uid-{name}") },
                "spec": { "rollout": { "pauses": pauses } },
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let images = [image("old", "2026-01-01T00:00:00+99:99"), image("young", "2026-01-01T00:00:00Z")];
        assert!(images[0].0.is_err(), "it can be read");
        let all = Claimant::of_all(&images);
        let young = claim(&all[1], &all, &BTreeMap::new(), Some(&plan_of("old")));
        assert_eq!(young, Claim { selected: true, plan_is_ours: false, other: Some("old".into()) });
    }

    #[test]
    fn labels_decide_and_a_plan_without_an_owner_is_adopted() {
        let all = [image("edge", 1, &[("site", "edge")])];
        let edge = BTreeMap::from([("site".to_owned(), "edge".to_owned())]);
        let orphan = plan_of("nobody");
        assert!(claim(&all[0], &all, &edge, Some(&orphan)).plan_is_ours);
        let none = claim(&all[0], &all, &BTreeMap::new(), Some(&orphan));
        assert_eq!(none, Claim::default());
    }
}
