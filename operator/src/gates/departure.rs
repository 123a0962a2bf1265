//! Whether a node may leave service: every eviction as a dry run, and the gates of before.

use std::{sync::Arc, time::Instant};

use evenkeel_crds::{ManagedOSImage, health_gate::GateTime};
use evenkeel_operator_core::gates::Departure;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{
    Question,
    book::{Leaving, answer, expect},
};
use crate::{
    api::with_causes,
    context::Context,
    drain::{Rules, dry_run},
};

/// Pods that may not leave now may do so later.
const PODS_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// What a message names before it counts the rest.
const NAMED_MAX: usize = 3;

/// A node whose turn it would be.
pub struct Asked {
    /// Its name.
    pub node: String,
    /// What the answer is for.
    pub turn: String,
    /// Whether its pods have to leave.
    pub leaves: bool,
}

/// Begins to find out whether these nodes may begin their turn.
pub fn ask_departures(context: &Arc<Context>, image: &Arc<ManagedOSImage>, nodes: Vec<Asked>) {
    for asked in nodes {
        let (node, turn) = (asked.node.clone(), asked.turn.clone());
        let key = (image.uid().unwrap_or_default(), node.clone());
        {
            let mut departures = context.book.departures();
            let known = departures.get(&key);
            if known.is_some_and(|known| known.asking && known.turn == turn) {
                continue;
            }
            // What it was is shown until something else is known.
            let held = known.map(|known| known.departure.clone());
            let held = held.filter(|departure| matches!(departure, Departure::Held { .. }));
            let departure = held.unwrap_or(Departure::Asking);
            let leaving = Leaving { turn: turn.clone(), asking: true, departure, wanted: Instant::now() };
            departures.insert(key.clone(), leaving);
        }
        let (context, image) = (Arc::clone(context), Arc::clone(image));
        tokio::spawn(async move {
            let departure = {
                let _permit = context.book.permits.acquire().await;
                find_out(&context, &image, &asked).await
            };
            let leaving = Leaving { turn, asking: false, departure, wanted: Instant::now() };
            context.book.departures().insert(key, leaving);
            context.seen.stir();
        });
    }
}

async fn find_out(context: &Context, image: &Arc<ManagedOSImage>, asked: &Asked) -> Departure {
    let Asked { node, turn, leaves } = asked;
    let now = Timestamp::now();
    let mut held: Vec<String> = Vec::new();
    let mut again = PODS_AGAIN;
    let drain = &image.spec.drain;
    if *leaves && drain.enabled && drain.dry_run {
        match Rules::new(drain, false, now) {
            Ok(rules) => match dry_run(context, node, &rules).await {
                Ok(kept) => held.extend(kept),
                Err(error) => held.push(with_causes(&error)),
            },
            Err(error) => held.push(format!("drain.podSelector cannot be used: {error}")),
        }
    }
    for gate in image.spec.health_gates.iter().filter(|gate| gate.when.contains(&GateTime::Before)) {
        if gate.node_condition.is_some() {
            continue;
        }
        let question = Question {
            image: Arc::clone(image),
            node: node.clone(),
            when: GateTime::Before,
            turn: turn.clone(),
            gate: gate.clone(),
        };
        expect(context, &question);
        if let Some(seen) = answer(context, &question).await.filter(|seen| !seen.met) {
            held.push(format!("gate {} is not met since {}: {}", seen.name, seen.since, seen.why));
            again = again.min(SignedDuration::from_secs(gate.interval_seconds));
        }
    }
    if held.is_empty() {
        Departure::Free { at: now }
    } else {
        Departure::Held { by: named(&held), again: now + again }
    }
}

fn named(held: &[String]) -> String {
    let shown = held.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    match held.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_few_are_named_and_the_rest_are_counted() {
        let held: Vec<String> = (0..5).map(|number| format!("p{number}")).collect();
        assert_eq!(named(&held), "p0; p1; p2; and 2 more");
        assert_eq!(named(&held[..1]), "p0");
    }
}
