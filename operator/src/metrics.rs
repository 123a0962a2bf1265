//! What is counted, for Prometheus. Labels are image objects, phases and fixed words: their number stays small.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use evenkeel_crds::ManagedOSImageStatus;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

/// Seconds: from a look at a small fleet to one that writes to hundreds of nodes.
const BUCKETS: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ImagePhase {
    image: String,
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Image {
    image: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    nodes: Family<ImagePhase, Gauge<i64, AtomicI64>>,
    updated: Family<Image, Gauge<i64, AtomicI64>>,
    stopped: Family<Image, Gauge<i64, AtomicI64>>,
    seconds: Family<Image, Histogram, Seconds>,
    reconcile_errors: Family<Reason, Counter<u64, AtomicU64>>,
    api_errors: Family<Reason, Counter<u64, AtomicU64>>,
    leader: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("evenkeel");
        let nodes = Family::default();
        registry.register("nodes", "Nodes of an image object by the phase of their plan", nodes.clone());
        let updated = Family::default();
        registry.register("nodes_updated", "Nodes that run the wanted image, committed", updated.clone());
        let stopped = Family::default();
        registry.register("rollout_stopped", "Whether a rollout stopped after a failure", stopped.clone());
        let seconds = Family::new_with_constructor(Seconds);
        registry.register("reconcile_seconds", "How long one look at an image object took", seconds.clone());
        let reconcile_errors = Family::default();
        let help = "Looks at an image object that ended in an error, by its reason";
        registry.register("reconcile_errors", help, reconcile_errors.clone());
        let api_errors = Family::default();
        registry.register("api_errors", "Calls to the API server that failed, by reason", api_errors.clone());
        let leader = Gauge::default();
        registry.register("leader", "Whether this replica is the one that acts", leader.clone());
        Self { registry, nodes, updated, stopped, seconds, reconcile_errors, api_errors, leader }
    }
}

impl Metrics {
    /// The text form.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Whether this replica is the one that acts.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// One look at an image object.
    pub fn looked(&self, image: &str, took: Duration) {
        self.seconds.get_or_create(&Image { image: image.to_owned() }).observe(took.as_secs_f64());
    }

    /// A look that ended in an error.
    pub fn reconcile_failed(&self, reason: &'static str) {
        self.reconcile_errors.get_or_create(&Reason { reason }).inc();
    }

    /// A call to the API server that failed.
    pub fn api_failed(&self, reason: &'static str) {
        self.api_errors.get_or_create(&Reason { reason }).inc();
    }

    /// Where an image's nodes are.
    pub fn shows(
        &self,
        image: &str,
        before: &ManagedOSImageStatus,
        status: &ManagedOSImageStatus,
        stopped: bool,
    ) {
        let label = |phase: &str| ImagePhase { image: image.to_owned(), phase: phase.to_owned() };
        for phase in before.phases.keys().filter(|phase| !status.phases.contains_key(*phase)) {
            self.nodes.remove(&label(phase));
        }
        for (phase, count) in &status.phases {
            self.nodes.get_or_create(&label(phase)).set(*count);
        }
        let image = Image { image: image.to_owned() };
        self.updated.get_or_create(&image).set(status.nodes.updated);
        self.stopped.get_or_create(&image).set(stopped.into());
    }

    /// An image object is gone.
    pub fn forget(&self, image: &str, last: &ManagedOSImageStatus) {
        for phase in last.phases.keys() {
            self.nodes.remove(&ImagePhase { image: image.to_owned(), phase: phase.clone() });
        }
        let image = Image { image: image.to_owned() };
        self.updated.remove(&image);
        self.stopped.remove(&image);
        self.seconds.remove(&image);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_without_nodes_and_an_image_that_is_gone_are_not_shown() {
        let metrics = Metrics::default();
        let status = |phase: &str| ManagedOSImageStatus {
            phases: [(phase.to_owned(), 2)].into(),
            ..ManagedOSImageStatus::default()
        };
        metrics.shows("os", &ManagedOSImageStatus::default(), &status("Staging"), false);
        metrics.shows("os", &status("Staging"), &status("Staged"), true);
        let text = metrics.text();
        assert!(text.contains(r#"evenkeel_nodes{image="os",phase="Staged"} 2"#), "{text}");
        assert!(text.contains(r#"evenkeel_rollout_stopped{image="os"} 1"#), "{text}");
        assert!(!text.contains("Staging"), "{text}");
        metrics.forget("os", &status("Staged"));
        assert!(!metrics.text().contains(r#"image="os""#), "{}", metrics.text());
    }
}
