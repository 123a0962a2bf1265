//! What is known of gates, and when each is asked again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use evenkeel_crds::{
    ManagedOSImage,
    health_gate::{GateTime, HealthGate, OnGateError},
};
use evenkeel_operator_core::gates::{Departure, GateSeen};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{Verdict, judge};
use crate::context::Context;

/// Gates that are asked at the same time.
const AT_ONCE: usize = 16;
/// What nobody wanted to know for this long is forgotten.
const FORGET: Duration = Duration::from_mins(30);

/// One gate for one node.
#[derive(Clone, Debug)]
pub struct Question {
    /// The image object.
    pub image: Arc<ManagedOSImage>,
    /// The node's name.
    pub node: String,
    /// For when.
    pub when: GateTime,
    /// What the answer is for: another turn, or another boot, asks anew.
    pub turn: String,
    /// The gate.
    pub gate: HealthGate,
}

/// Image object's UID, node, gate, and for when.
type Key = (String, String, String, GateTime);

struct Entry {
    turn: String,
    gate: HealthGate,
    asking: bool,
    streak: i32,
    seen: Option<GateSeen>,
    due: Instant,
    wanted: Instant,
}

/// Whether a node may leave service, as it was last found out.
pub(super) struct Leaving {
    pub turn: String,
    pub asking: bool,
    pub departure: Departure,
    pub wanted: Instant,
}

/// What is known. All of it may be lost with the process: it is asked again.
pub struct Book {
    gates: Mutex<HashMap<Key, Entry>>,
    departures: Mutex<HashMap<(String, String), Leaving>>,
    pub(super) permits: Arc<Semaphore>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            gates: Mutex::default(),
            departures: Mutex::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Question {
    fn key(&self) -> Key {
        let uid = self.image.metadata.uid.clone().unwrap_or_default();
        (uid, self.node.clone(), self.gate.name.clone(), self.when)
    }
}

impl Book {
    /// What is known of a gate; asks in the background if it is time to.
    pub fn look(context: &Arc<Context>, question: Question) -> Option<GateSeen> {
        let (seen, ask) = context.book.note_wanted(&question);
        if ask {
            let context = Arc::clone(context);
            tokio::spawn(async move {
                let _permit = context.book.permits.acquire().await;
                answer(&context, &question).await;
                context.seen.stir();
            });
        }
        seen
    }

    /// What is known, and whether it is to be asked now.
    fn note_wanted(&self, question: &Question) -> (Option<GateSeen>, bool) {
        let mut gates = lock(&self.gates);
        let now = Instant::now();
        let new = || Entry {
            turn: question.turn.clone(),
            gate: question.gate.clone(),
            asking: false,
            streak: 0,
            seen: None,
            due: now,
            wanted: now,
        };
        let entry = gates.entry(question.key()).or_insert_with(new);
        if entry.turn != question.turn || entry.gate != question.gate {
            *entry = new();
        }
        entry.wanted = now;
        let ask = !entry.asking && now >= entry.due;
        entry.asking |= ask;
        (entry.seen.clone(), ask)
    }

    /// Takes an answer, unless something else is asked by now.
    fn take(&self, question: &Question, verdict: Verdict) -> Option<GateSeen> {
        let mut gates = lock(&self.gates);
        let entry = gates.get_mut(&question.key())?;
        if entry.turn != question.turn || entry.gate != question.gate {
            return None;
        }
        let gate = &question.gate;
        let (met, why) = match verdict {
            Verdict::Met => (true, String::new()),
            Verdict::Unknown(why) => (gate.on_error == OnGateError::Ignore, why),
            Verdict::NotMet(why) => (false, why),
        };
        entry.streak = if met { entry.streak.saturating_add(1) } else { 0 };
        let enough = entry.streak >= gate.threshold;
        let why =
            if met { format!("met {} of {} times in a row", entry.streak, gate.threshold) } else { why };
        let same = entry.seen.as_ref().filter(|before| before.met == enough);
        let since = same.map_or_else(Timestamp::now, |before| before.since);
        let seen = GateSeen { name: gate.name.clone(), when: question.when, met: enough, since, why };
        entry.seen = Some(seen.clone());
        entry.asking = false;
        let seconds = u64::try_from(gate.interval_seconds).unwrap_or(1).max(1);
        entry.due = Instant::now() + Duration::from_secs(seconds);
        Some(seen)
    }

    /// Whether a node may leave service, as far as it is known for this turn.
    pub fn departure(&self, image: &str, node: &str, turn: &str) -> Departure {
        let departures = lock(&self.departures);
        let known = departures.get(&(image.to_owned(), node.to_owned()));
        known
            .filter(|known| known.turn == turn)
            .map_or_else(Departure::default, |known| known.departure.clone())
    }

    pub(super) fn departures(&self) -> MutexGuard<'_, HashMap<(String, String), Leaving>> {
        lock(&self.departures)
    }

    /// Forgets what nobody wanted to know for long. Once in a look, not with each question: there is one for each node.
    pub fn forget(&self) {
        let now = Instant::now();
        let wanted = |at: Instant| now.saturating_duration_since(at) < FORGET;
        lock(&self.gates).retain(|_, entry| wanted(entry.wanted) || entry.asking);
        lock(&self.departures).retain(|_, known| wanted(known.wanted) || known.asking);
    }
}

/// Asks a gate, and keeps the answer.
pub(super) async fn answer(context: &Context, question: &Question) -> Option<GateSeen> {
    let verdict = judge(context, question).await;
    tracing::debug!(node = question.node, gate = question.gate.name, ?verdict, "a gate was looked at");
    context.book.take(question, verdict)
}

/// Makes sure that there is an entry for a gate that is about to be asked.
pub(super) fn expect(context: &Context, question: &Question) {
    let _ = context.book.note_wanted(question);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change leaves each entry whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(threshold: i32, on_error: &str, turn: &str) -> Question {
        let gate = json!({
            "name": "web", "threshold": threshold, "onError": on_error,
            "workload": { "kind": "Deployment", "namespace": "web", "name": "web" },
        });
        Question {
            image: Arc::new(ManagedOSImage::new("os", evenkeel_crds::ManagedOSImageSpec::default())),
            node: "n1".into(),
            when: GateTime::After,
            turn: turn.into(),
            gate: serde_json::from_value(gate).unwrap(),
        }
    }

    #[test]
    fn a_gate_is_met_only_so_many_times_in_a_row() {
        let book = Book::default();
        let question = question(2, "Block", "t");
        assert_eq!(book.note_wanted(&question), (None, true));
        assert_eq!(book.note_wanted(&question), (None, false), "it is being asked");
        let met = |verdict| book.take(&question, verdict).unwrap();
        let first = met(Verdict::Met);
        assert!(!first.met && first.why == "met 1 of 2 times in a row", "{first:?}");
        assert!(!met(Verdict::NotMet("0 of 1".into())).met);
        assert!(!met(Verdict::Met).met);
        assert!(met(Verdict::Met).met);
        assert!(!book.note_wanted(&question).1, "it is not due yet");
        assert_eq!(met(Verdict::NotMet("0 of 1".into())).why, "0 of 1");
    }

    #[test]
    fn what_cannot_be_found_out_counts_as_was_asked() {
        for (on_error, met) in [("Block", false), ("Ignore", true)] {
            let (book, question) = (Book::default(), question(1, on_error, "t"));
            book.note_wanted(&question);
            let seen = book.take(&question, Verdict::Unknown("away".into())).unwrap();
            assert_eq!(seen.met, met, "{seen:?}");
        }
    }

    #[test]
    fn an_answer_for_another_turn_is_none() {
        let book = Book::default();
        let (before, after) = (question(1, "Block", "before"), question(1, "Block", "after"));
        book.note_wanted(&before);
        assert!(book.take(&before, Verdict::Met).unwrap().met);
        assert_eq!(book.note_wanted(&after), (None, true));
        assert_eq!(book.take(&before, Verdict::Met), None, "it comes too late");
    }
}
