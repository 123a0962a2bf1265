//! Follows this node's plan: facts, decision, journal, report, action, and again.
//!
//! The journal is on the disk before the step that it announces. Nothing here waits for the cluster but the wish for
//! another order: a trial, a way back and a pause go on without it.

pub mod act;
pub mod args;
pub mod host;
mod live;
pub mod plan_watch;
pub mod sight;
mod staging;

use std::time::Duration;

use anyhow::Context as _;
use evenkeel_crds::{NodePlan, node_plan::HostFacts};
use evenkeel_node_agent_core::{
    doctor::{Finding, Verdict, examine},
    journal::Journal,
    layout::RECOVERY_SLOT,
    live_config::LiveConfig,
    machine::{
        Action, Facts, HOST_AGAIN, Orders, Outcome, next, record,
        recovery::{forget, write_recovery},
        reset, resume, status, waits_for_host,
    },
};
use evenkeel_registry::{Platform, Reputation};
use jiff::Timestamp;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};

pub use args::RunArgs;

use crate::{
    doctor::{self, Look, Place},
    state_dir::{StateDir, StateError},
};
use act::ActError;
use plan_watch::PlanWatch;
use sight::Sight;

/// Longest pause between two looks at the machine: a person's `evenkeel-agent activate` is seen this late.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// Pause after a turn that could not be made, after a report that did not arrive, and while the guard's word is waited
/// for.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Follows the plan until the process is told to end.
pub async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        ended = follow(args) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn follow(args: &RunArgs) -> anyhow::Result<()> {
    let config =
        Config::infer().await.context("find the API server: run this in a pod, or set KUBECONFIG")?;
    let api_server = api_server(&config);
    let client = Client::try_from(config).context("set up the client of the API server")?;
    let state = StateDir::open(&args.state_dir)?;
    // An agent that is being replaced may not have ended yet.
    let _lock = state.lock().await?;
    let mut agent = Agent {
        journal: state.journal()?,
        watch: PlanWatch::start(client, &args.node_name),
        sight: Sight::new(args.proc.clone(), args.disk.clone()),
        state,
        args: args.clone(),
        api_server,
        reputation: Reputation::default(),
        seen: None,
    };
    tell_troubles(args);
    tracing::info!(node = args.node_name, version = env!("CARGO_PKG_VERSION"), "following this node's plan");
    loop {
        let pause = match agent.turn().await {
            Ok(pause) => pause,
            Err(error) => {
                let error = error.plan_error();
                tracing::warn!(error = error.message, "this turn could not be made; trying again");
                agent.sight.forget();
                agent.watch.report_error(error).await;
                TRY_AGAIN
            }
        };
        agent.watch.changed(pause).await;
    }
}

/// Says at the start what would stop an upgrade, and not first when one is wanted.
fn tell_troubles(args: &RunArgs) {
    let place = Place {
        disk: args.disk.clone(),
        machine: true,
        state_dir: args.state_dir.clone(),
        proc: args.proc.clone(),
        reboot_command: args.reboot_command.clone(),
    };
    let facts = tokio::task::block_in_place(|| doctor::look(&place, Look::Only));
    for finding in examine(&facts).into_iter().filter(|finding| finding.verdict > Verdict::Ok) {
        let Finding { check, message, advice, .. } = finding;
        tracing::warn!(check, advice, "{message}");
    }
}

struct Agent {
    args: RunArgs,
    state: StateDir,
    watch: PlanWatch,
    sight: Sight,
    journal: Journal,
    /// `host:port` of the API server.
    api_server: Option<String>,
    /// What is known of registries and mirrors, from one attempt to the next.
    reputation: Reputation,
    /// The plan's identity and generation in the turn before.
    seen: Option<(Option<String>, Option<i64>)>,
}

impl Agent {
    /// One look, one decision, at most one action. Gives the pause until the next.
    async fn turn(&mut self) -> Result<Duration, ActError> {
        let plan = self.watch.plan();
        let orders = plan.as_ref().and_then(|plan| Orders::of(&plan.spec));
        self.notice(plan.as_ref());
        let facts = self.look()?;
        self.keep(resume(&self.journal, orders.as_ref(), &facts))?;
        let (journal, action) = next(&self.journal, orders.as_ref(), &facts);
        self.keep(journal)?;
        let action = match (action, &plan) {
            (Action::Wait, Some(plan)) => self.beside_the_image(plan, &facts)?,
            (Action::Wait, None) => reset::left_over(&facts).unwrap_or(Action::Wait),
            (action, _) => action,
        };
        let reported = action.tells_of_itself() || self.report(plan.as_ref(), &facts).await;
        let longest = match waits_for_host(&self.journal, &facts) {
            true if self.watch.has_more_to_say() => HOST_AGAIN,
            false if reported => LOOK_AGAIN,
            _ => TRY_AGAIN,
        };
        match action {
            Action::Wait => Ok(longest),
            Action::WaitUntil(at) => {
                let left = u64::try_from(at - facts.now.as_second()).unwrap_or(0).max(1);
                Ok(longest.min(Duration::from_secs(left)))
            }
            action => {
                // A boot partition that takes nothing does not the next moment either.
                let pause = if action == Action::WithdrawReset { TRY_AGAIN } else { Duration::ZERO };
                self.do_it(plan, action, facts).await?;
                Ok(pause)
            }
        }
    }

    /// What is to be done when nothing is to be done about the image.
    fn beside_the_image(&mut self, plan: &NodePlan, facts: &Facts) -> Result<Action, ActError> {
        let (anew, wanted) = (plan.spec.reset.as_ref(), plan.spec.recovery_image());
        self.keep(reset::notice(&forget(&self.journal, wanted, facts), anew, facts))?;
        let action = reset::begin_anew(&self.journal, anew, facts);
        Ok(action.or_else(|| write_recovery(&self.journal, wanted, facts)).unwrap_or(Action::Wait))
    }

    async fn do_it(&mut self, plan: Option<NodePlan>, action: Action, facts: Facts) -> Result<(), ActError> {
        tracing::info!(?action, "acting");
        let outcome = match &action {
            Action::Stage { slot, image } => self.stage(plan, slot, image, &facts).await,
            Action::WriteRecovery { image } => self.stage(plan, RECOVERY_SLOT, image, &facts).await,
            _ => Some(self.act(&action, plan.as_ref()).await),
        };
        self.sight.forget();
        let Some(outcome) = outcome else { return Ok(()) };
        match &outcome {
            Outcome::Failed(error) => {
                tracing::warn!(reason = error.reason, message = error.message, "the action failed");
            }
            outcome => tracing::info!(?outcome, "the action succeeded"),
        }
        let facts = Facts { now: Timestamp::now(), ..facts };
        self.keep(record(&self.journal, &action, outcome, &facts))
    }

    async fn act(&self, action: &Action, plan: Option<&NodePlan>) -> Outcome {
        let tools = act::Tools {
            proc: self.args.proc.clone(),
            disk: self.args.disk.clone(),
            state: self.state.clone(),
            reboot_command: self.args.reboot_command.clone(),
            commit_deadline: plan.and_then(|plan| plan.spec.commit_deadline_seconds),
            attempt: self.journal.attempt.clone(),
            api_server: self.api_server.clone(),
            cloud_config: plan.and_then(|plan| plan.spec.cloud_config.clone()),
        };
        let action = action.clone();
        match tokio::task::spawn_blocking(move || act::act(&tools, &action)).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(error)) => Outcome::Failed(error.plan_error()),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn look(&mut self) -> Result<Facts, ActError> {
        let (verdict, passed) = (self.state.verdict()?, self.state.checks_passed()?);
        let (checks, state) = (self.state.slot_checks()?, &self.state);
        tokio::task::block_in_place(|| {
            let running = host::running_slot(&self.args.proc)?;
            let live = running
                .map_or_else(|| Ok(LiveConfig::default()), |running| known_live(state, &running.name))?;
            let facts = self.sight.look(verdict, passed.as_ref(), &checks, live)?;
            // The guard writes it there before it takes it from the boot partition.
            let noted = state.reset_done()?.map(|done| done.id);
            Ok(Facts { reset_done: facts.reset_done.or(noted), ..facts })
        })
    }

    /// A new order is a reason to look again.
    fn notice(&mut self, plan: Option<&NodePlan>) {
        let now = plan.map(|plan| (plan.metadata.uid.clone(), plan.metadata.generation));
        if now != self.seen {
            self.sight.forget();
            self.seen = now;
        }
    }

    /// Remembers, durably, what is new.
    fn keep(&mut self, journal: Journal) -> Result<(), ActError> {
        if journal != self.journal {
            self.state.write_journal(&journal)?;
            self.journal = journal;
        }
        Ok(())
    }

    async fn report(&mut self, plan: Option<&NodePlan>, facts: &Facts) -> bool {
        let generation = plan.and_then(|plan| plan.metadata.generation);
        let before = self.watch.status_before();
        let status = status(&self.journal, facts, None, host_facts(facts), generation, before.as_ref());
        self.watch.report(status).await
    }
}

/// What is known of cloud-configs without a reboot. An agent that runs says that boots with what is kept come far enough.
fn known_live(state: &StateDir, slot: &str) -> Result<LiveConfig, StateError> {
    let mut live = state.live_config(slot)?;
    if let Some(boots) = live.prove() {
        state.write_live_boots(&boots)?;
        live.boots = Some(boots);
    }
    Ok(live)
}

fn api_server(config: &Config) -> Option<String> {
    let host = config.cluster_url.host()?;
    let port = match config.cluster_url.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    Some(format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(port)))
}

fn host_facts(facts: &Facts) -> HostFacts {
    HostFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: Platform::host().architecture,
        manageable: facts.running.is_some(),
    }
}
