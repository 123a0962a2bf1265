//! A small cluster in which only that goes wrong which the script says; the agents are the real update machine.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_crds::{ManagedOSImageSpec, condition::Time, rollout::Pause, rollout_status::RunNow};
use evenkeel_operator_core::{
    Action, Decision, DrainSeen, NodeSeen, Policy, Snapshot, check,
    gates::{self, Departure, GateSeen},
    plan,
    report::{StepState, StepWait},
    wishes::Approved,
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, Fate, Fault},
    said::said,
    written,
};

/// Time between two looks.
const TICK: SignedDuration = SignedDuration::from_secs(20);
/// A person's answer is asked for again after so long.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// Hexadecimal digits of a digest.
const DIGEST: usize = 64;

/// What a node is from the beginning.
#[derive(Default)]
pub struct Place {
    pub domain: String,
    pub weight: i32,
    pub labels: BTreeMap<String, String>,
    pub control_plane: bool,
    pub runs_operator: bool,
}

pub struct Cluster {
    pub now: Timestamp,
    pub policy: Policy,
    spec: Value,
    fleet: Snapshot,
    agents: BTreeMap<String, Agent>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    /// The version that does not boot on a node.
    bad: BTreeMap<String, String>,
    /// What keeps a node's pods from leaving.
    held: BTreeMap<String, String>,
    /// Gates that are not met: since when, and why.
    unmet: BTreeMap<String, (Timestamp, String)>,
    cordoned: BTreeSet<String>,
    boots: u32,
    last: Option<Decision>,
    said: String,
    lines: Vec<String>,
}

/// The digest of a version: its digits, then the same letter, so that a reader knows it again.
fn digest(version: &str) -> String {
    let digits: String = version.chars().filter(char::is_ascii_digit).collect();
    format!("sha256:{digits:f<DIGEST$}")
}

fn image(version: &str) -> String {
    format!("registry.example/os@{}", digest(version))
}

impl Cluster {
    /// Nothing yet, on a Friday at eight in the morning.
    pub fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let spec = json!({ "osImage": "registry.example/os:1" });
        Self {
            now,
            policy: policy_of(&spec, None).unwrap(),
            spec,
            fleet: Snapshot::default(),
            agents: BTreeMap::new(),
            labels: BTreeMap::new(),
            bad: BTreeMap::new(),
            held: BTreeMap::new(),
            unmet: BTreeMap::new(),
            cordoned: BTreeSet::new(),
            boots: 0,
            last: None,
            said: String::new(),
            lines: Vec::new(),
        }
    }

    /// What came of the last line.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    pub fn join(&mut self, name: &str, place: &Place) {
        self.boots += 1;
        let boot_id = format!("boot-{}", self.boots);
        self.agents.insert(name.to_owned(), Agent::new(Fate::Fine, &boot_id, self.now, SignedDuration::ZERO));
        let node = NodeSeen {
            selected: true,
            ready: true,
            boot_id,
            domain: place.domain.clone(),
            weight: place.weight,
            control_plane: place.control_plane,
            runs_operator: place.runs_operator,
            created: Some(self.now),
            ..NodeSeen::default()
        };
        self.fleet.nodes.insert(name.to_owned(), node);
        self.labels.insert(name.to_owned(), place.labels.clone());
        self.mark_steps();
    }

    pub fn node(&mut self, name: &str) -> Result<&mut NodeSeen, String> {
        self.fleet.nodes.get_mut(name).ok_or_else(|| format!("there is no node {name}"))
    }

    pub fn fate(&mut self, name: &str, fate: Fate, version: &str) -> Result<(), String> {
        self.node(name)?;
        self.bad.insert(name.to_owned(), digest(version));
        self.agents.get_mut(name).expect("made with its node").fate = fate;
        Ok(())
    }

    pub fn hold(&mut self, name: &str, by: Option<String>) -> Result<(), String> {
        self.node(name)?;
        match by {
            Some(by) => self.held.insert(name.to_owned(), by),
            None => self.held.remove(name),
        };
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)] // as all words of the script
    pub fn gate(&mut self, gate: &str, why: Option<String>) -> Result<(), String> {
        match why {
            Some(why) => self.unmet.insert(gate.to_owned(), (self.now, why)),
            None => self.unmet.remove(gate),
        };
        Ok(())
    }

    pub fn cordon(&mut self, name: &str, cordon: bool) -> Result<(), String> {
        self.node(name)?.unschedulable = cordon;
        if cordon {
            self.cordoned.insert(name.to_owned());
        } else {
            self.cordoned.remove(name);
        }
        Ok(())
    }

    pub fn specify(&mut self, fields: &Value) -> Result<(), String> {
        merge(&mut self.spec, fields);
        self.replace_policy()
    }

    pub fn ask_for(&mut self, version: &str) -> Result<(), String> {
        self.policy.image = Some(image(version));
        self.replace_policy()
    }

    pub fn pause(&mut self, owner: &str, reason: &str) -> Result<(), String> {
        let pause = Pause { owner: owner.to_owned(), reason: reason.to_owned(), until: None };
        self.spec["rollout"]["pauses"] = json!([pause]);
        self.replace_policy()
    }

    pub fn resume(&mut self, owner: &str) -> Result<(), String> {
        if self.policy.pauses.iter().all(|pause| pause.owner != owner) {
            return Err(format!("{owner} has not paused it"));
        }
        self.spec["rollout"]["pauses"] = json!([]);
        self.replace_policy()
    }

    pub fn approve(&mut self, by: &str) -> Result<(), String> {
        let step = self.last.as_ref().and_then(|decision| decision.report.step.clone());
        let Some(StepState { waits: StepWait::Approval { token }, .. }) = step else {
            return Err("nothing waits for a word".to_owned());
        };
        self.policy.approved = Some(Approved { step: token, by: by.to_owned() });
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)] // as all words of the script
    pub fn run_now(&mut self, by: &str, length: SignedDuration) -> Result<(), String> {
        self.policy.run_now = Some(RunNow { by: by.to_owned(), until: Time(self.now + length) });
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)] // as all words of the script
    pub fn allow(&mut self, version: &str) -> Result<(), String> {
        self.policy.allowed = Some(digest(version));
        Ok(())
    }

    /// Shows what a dry run says.
    pub fn preview(&mut self) -> Result<(), String> {
        let policy = Policy { dry_run: true, ..self.policy.clone() };
        let decision = plan(&policy, &self.fleet, self.now);
        let preview = decision.report.preview.ok_or("a dry run has no preview")?;
        self.lines.push(format!("{} nodes in {} waves", preview.nodes, preview.waves));
        for (number, wave) in preview.order.iter().enumerate() {
            self.lines.push(format!("wave {}: {}", number + 1, wave.join(", ")));
        }
        self.lines.extend(preview.blockers.iter().map(|why| format!("in the way: {}", short(why))));
        if let Some(seconds) = preview.seconds {
            self.lines.push(format!("{seconds} s in all"));
        }
        self.lines.extend(preview.ends_at.map(|at| format!("ends at {}", at.0)));
        Ok(())
    }

    pub fn run(&mut self, until: Timestamp) {
        while self.now < until {
            self.look();
            self.agents();
            self.now += TICK;
        }
    }

    fn replace_policy(&mut self) -> Result<(), String> {
        let old = self.policy.clone();
        let new = policy_of(&self.spec, old.image.as_deref())?;
        self.policy = Policy {
            rejected: old.rejected,
            denied: old.denied,
            progress: old.progress,
            run_now: old.run_now,
            approved: old.approved,
            allowed: old.allowed,
            deleting: old.deleting,
            ..new
        };
        self.mark_steps();
        Ok(())
    }

    fn mark_steps(&mut self) {
        for (name, node) in &mut self.fleet.nodes {
            let labels = &self.labels[name];
            node.step = self.policy.steps.iter().position(|step| {
                let wanted = step.selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
                wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
            });
        }
    }

    fn look(&mut self) {
        let decision = plan(&self.policy, &self.fleet, self.now);
        let broken = check::violations(&self.policy, &self.fleet, self.now, &decision.actions);
        assert!(broken.is_empty(), "{broken:?}");
        for name in &decision.report.asks {
            let by = self.departure(name);
            let now = self.now;
            if let Some(node) = self.fleet.nodes.get_mut(name) {
                node.checks.departure = match by {
                    Some(by) => Departure::Held { by, again: now + AGAIN },
                    None => Departure::Free { at: now },
                };
            }
        }
        self.tell(&decision);
        for (name, action) in decision.actions.clone() {
            self.apply(&name, action);
        }
        self.policy.rejected.clone_from(&decision.report.rejected);
        self.policy.denied.clone_from(&decision.report.denied);
        self.policy.progress.clone_from(&decision.report.progress);
        self.last = Some(decision);
    }

    /// What keeps a node from leaving service.
    fn departure(&self, name: &str) -> Option<String> {
        let before = |gate: &&evenkeel_crds::health_gate::HealthGate| {
            gate.when.contains(&evenkeel_crds::health_gate::GateTime::Before)
        };
        let gates = self.policy.gates.iter().filter(before);
        let unmet = gates
            .into_iter()
            .find_map(|gate| self.unmet.get(&gate.name).map(|(_, why)| format!("gate {}: {why}", gate.name)));
        unmet.or_else(|| self.held.get(name).cloned())
    }

    fn apply(&mut self, name: &str, action: Action) {
        let held = self.held.get(name).cloned();
        let cordoned = self.cordoned.contains(name);
        let node = self.fleet.nodes.get_mut(name).expect("only what was seen is acted on");
        match action {
            Action::Evict => {
                node.drain = match held {
                    Some(by) => DrainSeen::Remaining { pods: 1, blocked_by: Some(by) },
                    None => DrainSeen::Done,
                };
            }
            Action::ForceOut => node.drain = DrainSeen::Done,
            Action::ReleasePlan if node.gone => drop(self.fleet.nodes.remove(name)),
            action => written::write(&self.policy, node, action, cordoned),
        }
    }

    fn agents(&mut self) {
        for (name, node) in &mut self.fleet.nodes {
            if node.gone {
                continue;
            }
            self.boots += 1;
            let boot = format!("boot-{}", self.boots);
            let bad = self.bad.get(name).map_or("none", String::as_str);
            let agent = self.agents.get_mut(name).expect("made with its node");
            agent.step(node, (&boot, bad), Fault::None, self.now);
            let when = gates::time(node);
            let asked =
                self.policy.gates.iter().filter(|gate| when.is_some_and(|when| gate.when.contains(&when)));
            node.checks.gates = asked
                .map(|gate| GateSeen {
                    name: gate.name.clone(),
                    when: when.expect("gates are asked at a time"),
                    met: !self.unmet.contains_key(&gate.name),
                    since: self.unmet.get(&gate.name).map_or(self.now, |(since, _)| *since),
                    why: self.unmet.get(&gate.name).map(|(_, why)| why.clone()).unwrap_or_default(),
                })
                .collect();
        }
    }

    /// Tells what is done, and the status line when it says something new.
    fn tell(&mut self, decision: &Decision) {
        let mut done: Vec<(String, Vec<&str>)> = Vec::new();
        for (name, action) in &decision.actions {
            let Some(what) = said(action) else { continue };
            match done.iter_mut().find(|(known, _)| *known == what) {
                Some((_, names)) => names.push(name),
                None => done.push((what, vec![name])),
            }
        }
        let mut lines: Vec<String> =
            done.into_iter().map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        let line = short(&decision.report.summary());
        if line != self.said {
            lines.push(format!("“{line}”"));
            self.said = line;
        }
        let clock = self.now.to_zoned(TimeZone::UTC).strftime("%a %H:%M:%S").to_string();
        for (number, line) in lines.iter().enumerate() {
            let clock = if number == 0 { clock.as_str() } else { "" };
            self.lines.push(format!("{clock:<14}{}", short(line)));
        }
    }
}

fn policy_of(spec: &Value, image: Option<&str>) -> Result<Policy, String> {
    let spec: ManagedOSImageSpec = serde_json::from_value(spec.clone()).map_err(|error| error.to_string())?;
    Policy::new("workers", "0a1b2c3d-uid", &spec, image).map_err(|error| error.to_string())
}

/// Objects are merged, all else is replaced.
fn merge(into: &mut Value, fields: &Value) {
    match (into, fields) {
        (Value::Object(into), Value::Object(fields)) => {
            for (key, value) in fields {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, value) => into.clone_from(value),
    }
}

/// The same letter again and again says nothing.
fn short(text: &str) -> String {
    text.replace(&"f".repeat(DIGEST - 2), "…")
}
