//! Where each image object's rollout is.

use std::{
    collections::{BTreeSet, HashMap},
    mem::{Discriminant, discriminant},
    sync::{Mutex, PoisonError, atomic::AtomicI64},
};

use evenkeel_crds::{ManagedOSImageStatus, condition::ConditionStatus};
use evenkeel_operator_core::{Report, report::Hold};
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::word;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Image {
    image: String,
}

impl Image {
    pub(super) fn named(name: &str) -> Self {
        Self { image: name.to_owned() }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ImagePhase {
    image: String,
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ImageHold {
    image: String,
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ImageCondition {
    image: String,
    condition: String,
}

type Gauges<L> = Family<L, Gauge<i64, AtomicI64>>;

/// What was last shown of an image object.
#[derive(Debug, Default)]
struct Shown {
    phases: Vec<(String, i64)>,
    holds: BTreeSet<String>,
    conditions: BTreeSet<String>,
}

/// Where each image object's rollout is.
#[derive(Default)]
pub struct Images {
    phases: Gauges<ImagePhase>,
    selected: Gauges<Image>,
    updated: Gauges<Image>,
    out_of_service: Gauges<Image>,
    failed: Gauges<Image>,
    held: Gauges<ImageHold>,
    conditions: Gauges<ImageCondition>,
    stopped: Gauges<Image>,
    paused: Gauges<Image>,
    window: Gauges<Image>,
    next_window: Gauges<Image>,
    progress: Gauges<Image>,
    shown: Mutex<HashMap<String, Shown>>,
}

impl Images {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("nodes", "Nodes by the phase of their plan", it.phases.clone());
        registry.register("nodes_selected", "Nodes that the image is for", it.selected.clone());
        registry.register("nodes_updated", "Nodes that run the wanted image, committed", it.updated.clone());
        let help = "Nodes whose turn it is: out of service, or about to be";
        registry.register("nodes_out_of_service", help, it.out_of_service.clone());
        registry.register("nodes_failed", "Nodes on which the image failed", it.failed.clone());
        registry.register("nodes_held", "Nodes that wait, by what holds them", it.held.clone());
        let help = "Whether a condition of the image object is True";
        registry.register("image_condition", help, it.conditions.clone());
        registry.register("rollout_stopped", "Whether a rollout stopped after a failure", it.stopped.clone());
        registry.register("rollout_paused", "Whether somebody paused a rollout", it.paused.clone());
        let help = "Whether windows and exclusions let nodes be started; without any they always do";
        registry.register("rollout_window_open", help, it.window.clone());
        let help = "When they next will, since 1970; only while they do not, and a time is known";
        registry.register_with_unit(
            "rollout_next_window_timestamp",
            help,
            Unit::Seconds,
            it.next_window.clone(),
        );
        let help =
            "When a node last came to another phase, since 1970; at first when this process saw the image";
        registry.register_with_unit("rollout_progress_timestamp", help, Unit::Seconds, it.progress.clone());
        it
    }

    /// Shows a look's result.
    pub fn show(&self, name: &str, status: &ManagedOSImageStatus, report: Option<&Report>, now: Timestamp) {
        let image = Image::named(name);
        self.selected.get_or_create(&image).set(status.nodes.total);
        self.updated.get_or_create(&image).set(status.nodes.updated);
        self.out_of_service.get_or_create(&image).set(status.nodes.updating);
        self.failed.get_or_create(&image).set(status.nodes.failed);
        let holds = |what: fn(&Report) -> bool| i64::from(report.is_some_and(what));
        self.stopped.get_or_create(&image).set(holds(|report| report.stopped.is_some()));
        self.paused.get_or_create(&image).set(holds(|report| report.paused.is_some()));
        self.show_window(&image, report);

        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !all.contains_key(name);
        let shown = all.entry(name.to_owned()).or_default();
        let phases: Vec<(String, i64)> = status.phases.iter().map(|(phase, n)| (phase.clone(), *n)).collect();
        if first || phases != shown.phases {
            self.progress.get_or_create(&image).set(now.as_second());
        }
        for (phase, _) in shown.phases.iter().filter(|(phase, _)| !status.phases.contains_key(phase)) {
            self.phases.remove(&ImagePhase { image: name.to_owned(), phase: phase.clone() });
        }
        for (phase, count) in &phases {
            self.phases
                .get_or_create(&ImagePhase { image: name.to_owned(), phase: phase.clone() })
                .set(*count);
        }
        shown.phases = phases;
        self.show_holds(name, report, shown);
        for condition in &status.conditions {
            let label = ImageCondition { image: name.to_owned(), condition: condition.r#type.clone() };
            let holds = condition.status == ConditionStatus::True;
            self.conditions.get_or_create(&label).set(holds.into());
            shown.conditions.insert(condition.r#type.clone());
        }
    }

    fn show_window(&self, image: &Image, report: Option<&Report>) {
        match report {
            Some(report) => _ = self.window.get_or_create(image).set((!report.shut).into()),
            // Without a decision nobody looked at them.
            None => _ = self.window.remove(image),
        }
        match report.and_then(|report| report.next_window) {
            Some(next) => _ = self.next_window.get_or_create(image).set(next.as_second()),
            None => _ = self.next_window.remove(image),
        }
    }

    fn show_holds(&self, name: &str, report: Option<&Report>, shown: &mut Shown) {
        let label = |reason: &str| ImageHold { image: name.to_owned(), reason: reason.to_owned() };
        let held = held(report);
        for reason in shown.holds.iter().filter(|reason| !held.contains_key(*reason)) {
            self.held.remove(&label(reason));
        }
        for (reason, count) in &held {
            self.held.get_or_create(&label(reason)).set(*count);
        }
        shown.holds = held.into_keys().collect();
    }

    /// An image object is gone.
    pub(super) fn forget(&self, name: &str) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = all.remove(name).unwrap_or_default();
        for (phase, _) in shown.phases {
            self.phases.remove(&ImagePhase { image: name.to_owned(), phase });
        }
        for reason in shown.holds {
            self.held.remove(&ImageHold { image: name.to_owned(), reason });
        }
        for condition in shown.conditions {
            self.conditions.remove(&ImageCondition { image: name.to_owned(), condition });
        }
        let image = Image::named(name);
        for gauges in [
            &self.selected,
            &self.updated,
            &self.out_of_service,
            &self.failed,
            &self.stopped,
            &self.paused,
            &self.window,
            &self.next_window,
            &self.progress,
        ] {
            gauges.remove(&image);
        }
    }
}

/// How many nodes wait, by what holds them. The word is made once for each reason: fleets are large.
fn held(report: Option<&Report>) -> HashMap<String, i64> {
    let mut counts: HashMap<Discriminant<Hold>, (&Hold, i64)> = HashMap::new();
    for state in report.iter().flat_map(|report| report.nodes.values()) {
        if let Some(hold) = state.hold() {
            counts.entry(discriminant(hold)).or_insert((hold, 0)).1 += 1;
        }
    }
    counts.into_values().map(|(hold, count)| (word(hold), count)).collect()
}
