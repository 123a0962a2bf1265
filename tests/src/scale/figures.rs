//! What a run comes to, each figure with its limit.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use jiff::Timestamp;

use super::Run;
use crate::audit::{Request, by_verb};

const MIB: f64 = 1024.0 * 1024.0;
/// Up to so many nodes the smaller limit of memory holds; from as many on that of the rate.
const SMALL: usize = 1000;

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    None,
    Most(f64),
    Least(f64),
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    what: &'static str,
    value: f64,
    unit: &'static str,
    limit: Limit,
    /// Whether it is another one on another machine, or beside other work.
    timed: bool,
}

impl Figure {
    /// Whether it keeps its limit.
    pub fn holds(&self) -> bool {
        match self.limit {
            Limit::None => true,
            Limit::Most(most) => self.value <= most,
            Limit::Least(least) => self.value >= least,
        }
    }
}

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, unit, limit, .. } = self;
        write!(f, "{what:<52} {value:>10.2} {unit:<8}")?;
        match limit {
            Limit::None => Ok(()),
            Limit::Most(most) => write!(f, " limit {most}"),
            Limit::Least(least) => write!(f, " at least {least}"),
        }?;
        if self.holds() { Ok(()) } else { write!(f, "  MISSED") }
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Figures {
    all: Vec<Figure>,
    requests: String,
}

impl Figures {
    /// Of a run.
    pub fn of(run: &Run) -> Self {
        let mut all = timed(run);
        all.extend(untimed(run));
        let lines = OF.into_iter().flat_map(|(who, user)| {
            let counts = by_verb(in_rollout(run, user)).into_iter();
            let line = move |(verb, count)| {
                format!("  {who:<10} {verb:<40} {:>8.3}\n", ratio(count, run.options.nodes))
            };
            // What is done once in a while tells nothing of a node.
            counts.filter(|(_, count)| count * 100 > run.options.nodes).map(line)
        });
        Self { all, requests: lines.collect() }
    }

    /// Those that are missed.
    pub fn missed(&self) -> Vec<&Figure> {
        self.all.iter().filter(|figure| !figure.holds()).collect()
    }

    /// Those that are missed and say the same on every machine.
    pub fn missed_untimed(&self) -> Vec<&Figure> {
        self.missed().into_iter().filter(|figure| !figure.timed).collect()
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figure in &self.all {
            writeln!(f, "{figure}")?;
        }
        write!(f, "requests for each node:\n{}", self.requests)
    }
}

const OPERATOR: &str = ":evenkeel-operator";
const AGENT: &str = ":evenkeel-agent";
/// Whose requests are counted: by the end of the user's name, which is any for the rest.
const OF: [(&str, &str); 3] = [("operator", OPERATOR), ("agent", AGENT), ("anybody", "")];

fn in_rollout<'a>(run: &'a Run, user: &'a str) -> impl Iterator<Item = &'a Request> {
    run.audit.of(user, run.applied.1).filter(|request| request.at < run.ended)
}

fn timed(run: &Run) -> Vec<Figure> {
    let Run { options, times, cost, applied, processor, .. } = run;
    let since = |at: Option<std::time::Instant>| {
        at.map_or(f64::INFINITY, |at| at.duration_since(applied.0).as_secs_f64())
    };
    let whole = since(times.last_committed);
    let nodes = as_f64(options.nodes);
    let rate = if options.nodes < SMALL { Limit::None } else { Limit::Least(25.0) };
    let memory = Limit::Most(if options.nodes <= SMALL { 60.0 } else { 150e6 / MIB });
    let idle = run.audit.of(OPERATOR, run.ended).count();
    let minute = as_f64(idle) * 60.0 / options.idle.as_secs_f64().max(1.0);
    let clock = |what, value, unit, limit| Figure { what, value, unit, limit, timed: true };
    let took = |what, of: Duration| clock(what, of.as_secs_f64() * 1000.0 / nodes, "ms", Limit::None);
    vec![
        clock("from apply to the first order", since(times.first_order), "s", Limit::Most(1.0)),
        clock("from apply to the last node committed", whole, "s", Limit::None),
        clock("nodes in a second", nodes / whole, "", rate),
        clock(
            "reaction to a node that became healthy, p50",
            percentile(&times.reactions, 50),
            "s",
            Limit::None,
        ),
        clock("the same, p99", percentile(&times.reactions, 99), "s", Limit::Most(1.0)),
        clock("operator: peak of resident memory", as_f64(usize_of(cost.peak_rss)) / MIB, "MiB", memory),
        clock("operator: processor time", cost.cpu.as_secs_f64(), "s", Limit::None),
        took("processor time for each node: API server", processor.api_server),
        took("the same: etcd", processor.etcd),
        took("the same: controller manager", processor.controllers),
        took("the same: operator", processor.operator),
        took("the same: agents and kubelets", processor.crowd),
        took("the same: all of them", processor.whole()),
        clock("operator: requests in a minute after the rollout", minute, "", Limit::Most(60.0)),
    ]
}

fn untimed(run: &Run) -> Vec<Figure> {
    let nodes = run.options.nodes;
    let writes = |user| ratio(in_rollout(run, user).filter(|request| request.is_write()).count(), nodes);
    let service = run.audit.service(run.audit.first_write("managedosimages").unwrap_or(Timestamp::MIN));
    let exact =
        |what, value: usize, limit| Figure { what, value: as_f64(value), unit: "", limit, timed: false };
    let per_node = |what, value, limit| Figure { what, value, unit: "", limit, timed: false };
    vec![
        per_node("operator: writes for each node", writes(OPERATOR), Limit::Most(11.0)),
        per_node("agent: writes for each node", writes(AGENT), Limit::Most(10.0)),
        per_node(
            "store: writes for each node, by anybody",
            ratio(usize_of(run.revisions), nodes),
            Limit::None,
        ),
        exact("nodes out of service at once", service.worst, Limit::Most(as_f64(run.options.budget))),
        exact("nodes that went out of service", service.outages, Limit::Least(as_f64(nodes))),
        exact("cordons that are left", service.cordoned.len(), Limit::Most(0.0)),
        exact("plans", run.plans.0, Limit::Most(as_f64(nodes))),
        exact("turns that are not over", run.plans.1, Limit::Most(0.0)),
        exact("bytes of the image object's status", run.status_bytes, Limit::Most(4096.0)),
        exact("nodes whose decision was waited for", run.times.reactions.len(), Limit::Least(as_f64(nodes))),
        exact("nodes in trouble", run.times.troubles.len(), Limit::Most(0.0)),
    ]
}

fn percentile(samples: &[Duration], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(f64::INFINITY, Duration::as_secs_f64)
}

fn ratio(count: usize, nodes: usize) -> f64 {
    as_f64(count) / as_f64(nodes.max(1))
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn as_f64(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let samples: Vec<Duration> = (1..=200).rev().map(Duration::from_secs).collect();
        assert!((percentile(&samples, 50) - 100.0).abs() < 1e-9);
        assert!((percentile(&samples, 99) - 198.0).abs() < 1e-9);
        assert!(percentile(&[], 50).is_infinite());
    }
}
