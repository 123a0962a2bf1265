//! What a look does to many nodes alike. One event names as many of them as it has room for: a rollout over a thousand nodes
//! would write two thousand events otherwise, which nobody could read, and which cost the API server as much as any write.

use std::collections::BTreeMap;

use evenkeel_crds::node_plan::Phase;
use evenkeel_operator_core::{Action, NodeSeen};

use super::{NOTE_MAX, Told};

/// What is the same for many nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alike {
    /// The turn begins; with the image that the node shall run.
    Started(String),
    /// The turn ended well; with the image that the node runs.
    Updated(String),
}

impl Alike {
    /// What an action on a node has in common with others, if it has.
    pub fn of(node: &NodeSeen, action: &Action) -> Option<Self> {
        let image = || node.plan.as_ref().and_then(|plan| plan.spec.image.clone());
        let image = || image().unwrap_or_else(|| "its image".to_owned());
        match action {
            Action::BeginDisruption(record) if record.reset.is_none() && !record.going_back => {
                Some(Self::Started(image()))
            }
            Action::EndDisruption(_) if node.phase() == Phase::Committed => Some(Self::Updated(image())),
            _ => None,
        }
    }

    fn told(&self, names: &[&str]) -> Told {
        let (one, all) = (names.len() == 1, names.join(", "));
        match self {
            Self::Started(image) if one => {
                Told::normal("NodeStarted", format!("the turn of {all} begins: it shall run {image}"))
            }
            Self::Started(image) => {
                Told::normal("NodeStarted", format!("the turns of {all} begin: they shall run {image}"))
            }
            Self::Updated(image) if one => Told::normal("NodeUpdated", format!("{all} runs {image}")),
            Self::Updated(image) => Told::normal("NodeUpdated", format!("{all} run {image}")),
        }
    }
}

/// What to tell of all these nodes: each of them is named.
pub fn of_many<'a>(nodes: impl Iterator<Item = (&'a String, &'a Alike)>) -> Vec<Told> {
    let mut by_alike: BTreeMap<&Alike, Vec<&str>> = BTreeMap::new();
    for (name, alike) in nodes {
        by_alike.entry(alike).or_default().push(name);
    }
    by_alike.into_iter().flat_map(|(alike, names)| parts(alike, &names)).collect()
}

/// As few events as have room for all names.
fn parts(alike: &Alike, names: &[&str]) -> Vec<Told> {
    let (mut told, mut rest) = (Vec::new(), names);
    while !rest.is_empty() {
        // A comma and a space come before each but the first.
        let empty = alike.told(&["", ""]).note.len();
        let mut room = (NOTE_MAX + 2).saturating_sub(empty);
        let fits = rest.iter().take_while(|name| {
            let left = room.checked_sub(name.len() + 2);
            room = left.unwrap_or(0);
            left.is_some()
        });
        let count = fits.count().max(1);
        let (now, later) = rest.split_at(count);
        told.push(alike.told(now));
        rest = later;
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_events_as_have_room_name_every_node() {
        let started = Alike::Started(format!("registry.example/os@sha256:{}", "0".repeat(64)));
        let names: Vec<String> = (0..100).map(|number| format!("node-{number:03}.of.some.cluster")).collect();
        let nodes: BTreeMap<String, Alike> =
            names.iter().map(|name| (name.clone(), started.clone())).collect();
        let told = of_many(nodes.iter());
        assert!(
            told.iter().all(|told| told.note.len() <= NOTE_MAX && told.reason == "NodeStarted"),
            "{told:?}"
        );
        let times = |name: &String| told.iter().filter(|told| told.note.contains(name.as_str())).count();
        assert!(names.iter().all(|name| times(name) == 1), "{told:?}");
        let all: usize = told.iter().map(|told| told.note.len()).sum();
        assert_eq!(told.len(), all.div_ceil(NOTE_MAX), "{told:?}");
    }

    #[test]
    fn what_is_not_the_same_is_told_apart_and_one_node_in_its_own_words() {
        let updated = Alike::Updated("os@sha256:1".to_owned());
        let nodes = [
            ("n1".to_owned(), updated.clone()),
            ("n2".to_owned(), Alike::Started("os@sha256:1".to_owned())),
            ("n3".to_owned(), updated),
            ("n".repeat(2 * NOTE_MAX), Alike::Updated("os@sha256:2".to_owned())),
        ];
        let told = of_many(nodes.iter().map(|(name, alike)| (name, alike)));
        let said: Vec<&str> = told.iter().map(|told| told.note.as_str()).collect();
        assert_eq!(said[..2], ["the turn of n2 begins: it shall run os@sha256:1", "n1, n3 run os@sha256:1"]);
        assert_eq!(said.len(), 3, "one without room is told all the same");
    }
}
