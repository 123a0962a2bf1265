//! How the lists of channels are fetched.

use std::sync::atomic::AtomicI64;

use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Channel {
    channel: String,
}

type Gauges = Family<Channel, Gauge<i64, AtomicI64>>;

/// How the lists of channels are fetched.
#[derive(Default)]
pub struct Channels {
    fetched: Gauges,
    failing: Gauges,
    failures: Family<Channel, Counter>,
}

impl Channels {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        let help = "When the list of a channel was last fetched, since 1970; not before this process did";
        registry.register_with_unit("channel_fetched_timestamp", help, Unit::Seconds, it.fetched.clone());
        let help = "How often in a row the list of a channel could not be fetched or read, up to now";
        registry.register("channel_failing", help, it.failing.clone());
        let help = "How often the list of a channel could not be fetched or read";
        registry.register("channel_failures", help, it.failures.clone());
        it
    }

    /// A list was fetched.
    pub fn fetched(&self, name: &str, now: Timestamp) {
        let channel = Channel { channel: name.to_owned() };
        self.fetched.get_or_create(&channel).set(now.as_second());
        self.failing.get_or_create(&channel).set(0);
        // So that the first failure is seen as an increase.
        self.failures.get_or_create(&channel).inc_by(0);
    }

    /// A list could not be fetched, so often in a row by now.
    pub fn failed(&self, name: &str, in_a_row: u32) {
        let channel = Channel { channel: name.to_owned() };
        self.failing.get_or_create(&channel).set(in_a_row.into());
        self.failures.get_or_create(&channel).inc();
    }

    /// A channel is gone, or is not followed any more.
    pub fn forget(&self, name: &str) {
        let channel = Channel { channel: name.to_owned() };
        self.fetched.remove(&channel);
        self.failing.remove(&channel);
        self.failures.remove(&channel);
    }
}
