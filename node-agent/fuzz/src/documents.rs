//! Text that comes from outside, or from an older program.

use evenkeel_crds::node_plan::{HostFacts, NodePlanSpec, PlanError};
use evenkeel_node_agent_core::{
    journal::{ChecksPassed, Journal, TrialOrder, Verdict},
    kernel_options::{join, of_image},
    machine::{
        EntryFact, Facts, Orders, Outcome, RunningSlot, SlotContent, SlotFact, next, record, resume, status,
    },
};
use jiff::Timestamp;

use super::halves;

/// Between two documents of one input.
const MARK: &[u8] = b"--document--";

/// An image's file of kernel options.
pub fn kernel_options(bytes: &[u8]) {
    let options = of_image(&String::from_utf8_lossy(bytes));
    assert!(!options.contains(['\n', '\r', '\0']), "{options:?} would be a line of its own");
    let joined = join(&options, "root=/dev/mapper/evenkeel-root evenkeel.slot=a");
    assert!(joined.contains("evenkeel.slot=a"));
}

/// A manifest or index, and a configuration.
pub fn image_documents(bytes: &[u8]) {
    let (manifest, config) = halves(bytes, MARK);
    evenkeel_registry::from_outside::image_documents(manifest, config);
}

/// A Docker `config.json`.
pub fn docker_config(bytes: &[u8]) {
    evenkeel_registry::from_outside::docker_config(bytes);
}

/// A journal, and the documents beside it; a plan, and what the machine makes of them.
pub fn journal(bytes: &[u8]) {
    let (journal, rest) = halves(bytes, MARK);
    let (plan, verdict) = halves(rest, MARK);
    let _ = (serde_json::from_slice::<TrialOrder>(verdict), serde_json::from_slice::<ChecksPassed>(verdict));
    let verdict: Option<Verdict> = serde_json::from_slice(verdict).ok();
    let Ok(journal) = serde_json::from_slice::<Journal>(journal) else { return };
    let orders = serde_json::from_slice::<NodePlanSpec>(plan).ok().and_then(|spec| Orders::of(&spec));
    for entry in
        [EntryFact::Absent, EntryFact::Trial { left: 0 }, EntryFact::Trial { left: 2 }, EntryFact::Permanent]
    {
        for (running, now) in [("a", 1_800_000_000), ("b", -5)] {
            let facts = facts(entry, running, now, verdict.clone());
            turn(&journal, orders.as_ref(), &facts);
        }
    }
}

/// One turn of the agent, with a step that fails and one that does not.
fn turn(journal: &Journal, orders: Option<&Orders>, facts: &Facts) {
    let journal = resume(journal, orders, facts);
    assert_eq!(resume(&journal, orders, facts), journal, "a second look finds nothing new");
    let (journal, action) = next(&journal, orders, facts);
    let error = PlanError { reason: "Fuzzed".into(), message: String::new(), retryable: true };
    for outcome in [Outcome::Done, Outcome::Failed(error)] {
        let journal = record(&journal, &action, outcome, facts);
        let host = HostFacts { agent_version: String::new(), architecture: String::new(), manageable: true };
        let _ = status(&journal, facts, None, host, None, None);
        let stored = serde_json::to_vec(&journal).expect("a journal is JSON");
        assert_eq!(serde_json::from_slice::<Journal>(&stored).ok(), Some(journal));
    }
}

fn facts(entry: EntryFact, running: &str, now: i64, verdict: Option<Verdict>) -> Facts {
    let digest = format!("sha256:{}", "0".repeat(64));
    let slot = |name: &str| SlotFact {
        content: Some(SlotContent {
            image: format!("r.example/os@{digest}"),
            digest: digest.clone(),
            version: "1".into(),
            written_at: Timestamp::UNIX_EPOCH,
        }),
        entry: if name == "a" { EntryFact::Permanent } else { entry },
        ..SlotFact::empty(name)
    };
    Facts {
        recovery: None,
        running: Some(RunningSlot { name: running.into(), digest: digest.clone(), boot_id: "1".into() }),
        slots: vec![slot("a"), slot("b")],
        reset_requested: None,
        reset_done: None,
        live: evenkeel_node_agent_core::live_config::LiveConfig::default(),
        verdict,
        host_checks_passed: true,
        now: Timestamp::from_second(now).expect("a time between the years -9999 and 9999"),
    }
}
