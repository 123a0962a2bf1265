//! What is counted, for Prometheus. `docs/metrics.md` says what each name means; a test holds the two together. Labels
//! are image objects, channels and fixed words, never nodes: their number stays small.

mod api;
mod channel;
mod image;
mod text;
mod turn;

use std::{sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

pub use api::CountRequests;
use channel::Channels;
use image::{Image, Images};
use turn::Turns;

/// Seconds: from a look at a small fleet to one that writes to hundreds of nodes.
const LOOK: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Seconds: a decision about a few nodes, and one about the largest fleets.
const DECISION: [f64; 8] = [0.0001, 0.0005, 0.002, 0.01, 0.05, 0.1, 0.5, 2.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug)]
struct Looks;

impl MetricConstructor<Histogram> for Looks {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LOOK)
    }
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    images: Images,
    turns: Turns,
    channels: Channels,
    decisions: Histogram,
    looks: Family<Image, Histogram, Looks>,
    reconcile_errors: Family<Reason, Counter>,
    requests: CountRequests,
    api_errors: Family<Reason, Counter>,
    leader: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("evenkeel");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The operator's version", build);
        let leader = Gauge::default();
        registry.register("leader", "Whether this replica is the one that acts", leader.clone());
        let images = Images::register(&mut registry);
        let turns = Turns::register(&mut registry);
        let channels = Channels::register(&mut registry);
        let decisions = Histogram::new(DECISION);
        let help = "How long it took to decide what to do next, without asking or writing anything";
        registry.register_with_unit("decision", help, Unit::Seconds, decisions.clone());
        let looks = Family::new_with_constructor(Looks);
        let help = "How long one look at an image object took, with all that was asked and written";
        registry.register_with_unit("reconcile", help, Unit::Seconds, looks.clone());
        let reconcile_errors = Family::default();
        let help = "Looks at an image object that ended in an error, by its reason";
        registry.register("reconcile_errors", help, reconcile_errors.clone());
        let requests = CountRequests::register(&mut registry);
        let api_errors = Family::default();
        registry.register("api_errors", "Calls to the API server that failed, by reason", api_errors.clone());
        Self {
            registry,
            images,
            turns,
            channels,
            decisions,
            looks,
            reconcile_errors,
            requests,
            api_errors,
            leader,
        }
    }
}

impl Metrics {
    /// As `OpenMetrics` text.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// In Prometheus' own text format, version 0.0.4.
    pub fn text(&self) -> String {
        text::classic(&self.open_metrics())
    }

    /// Counts the requests of a client.
    pub fn requests(&self) -> &CountRequests {
        &self.requests
    }

    /// What nodes' turns take and come to.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Where image objects are.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// How the lists of channels are fetched.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Whether this replica is the one that acts.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// One decision.
    pub fn decided(&self, took: Duration) {
        self.decisions.observe(took.as_secs_f64());
    }

    /// One look at an image object.
    pub fn looked(&self, image: &str, took: Duration) {
        self.looks.get_or_create(&Image::named(image)).observe(took.as_secs_f64());
    }

    /// A look that ended in an error.
    pub fn reconcile_failed(&self, reason: &'static str) {
        self.reconcile_errors.get_or_create(&Reason { reason }).inc();
    }

    /// A call to the API server that failed.
    pub fn api_failed(&self, reason: &'static str) {
        self.api_errors.get_or_create(&Reason { reason }).inc();
    }

    /// An image object is gone.
    pub fn forget(&self, image: &str) {
        self.images.forget(image);
        self.looks.remove(&Image::named(image));
    }
}

/// The name of a variant: what stands before its fields.
fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests;
