//! One machine: turn by turn as the agent does it, with a kubelet that reports each boot.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use evenkeel_crds::{
    NodePlan, NodePlanStatus,
    names::AGENT_FIELD_MANAGER,
    node_plan::{HostFacts, Phase, StagingCost, Target},
};
use evenkeel_node_agent_core::{
    journal::Journal,
    machine::{
        Action, EntryFact, Facts, HOST_AGAIN, Orders, Outcome, REPORT_WITHIN, TRIAL_TRIES, may_wait, next,
        record, report, resume, status, waits_for_host,
    },
};
use http::HeaderValue;
use kube::{
    Client, Resource as _,
    api::{Patch, PatchParams},
    core::Request,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{account::Account, host::Host};
use crate::{machine::kubelet, rights::NAMESPACE};

/// The API server makes of these the user that a token which is bound to a node is for.
const USER: &str = "impersonate-user";
const NODE_NAME: &str = "impersonate-extra-authentication.kubernetes.io%2fnode-name";
/// Pause after a write that did not arrive.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Pause while the update machine waits for a time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub struct Member {
    client: Client,
    name: String,
    user: String,
    host: Host,
    journal: Journal,
    plan: watch::Receiver<Option<Arc<NodePlan>>>,
    written: Option<(Option<String>, NodePlanStatus)>,
    /// Since when a status waits for one that says more.
    waits_since: Option<Instant>,
    /// When the report was answered that made the node healthy on trial, until the operator has decided on it.
    healthy: Option<Instant>,
    account: Account,
    permits: Arc<Semaphore>,
}

impl Member {
    pub fn new(
        client: Client,
        name: String,
        agent: &str,
        host: Host,
        plan: watch::Receiver<Option<Arc<NodePlan>>>,
        account: Account,
        permits: &Arc<Semaphore>,
    ) -> Self {
        Self {
            client,
            name,
            user: format!("system:serviceaccount:{NAMESPACE}:{agent}"),
            host,
            journal: Journal::default(),
            plan,
            written: None,
            waits_since: None,
            healthy: None,
            account,
            permits: Arc::clone(permits),
        }
    }

    pub async fn run(mut self) {
        loop {
            match self.turn().await {
                Ok(Some(pause)) => {
                    // The sender lives as long as the crowd.
                    let _ = timeout(pause, self.plan.changed()).await;
                }
                Ok(None) => {}
                Err(error) => {
                    self.account.trouble(&self.name, format!("{error:#}"));
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// One look, one decision, at most one action, as `evenkeel-agent run` does it. Gives the pause until the next.
    async fn turn(&mut self) -> Result<Option<Duration>> {
        let plan = self.plan.borrow_and_update().clone();
        let orders = plan.as_ref().and_then(|plan| Orders::of(&plan.spec));
        if orders.is_some() {
            self.account.ordered();
        }
        self.note_reaction(plan.as_deref());
        let facts = self.host.facts();
        self.journal = resume(&self.journal, orders.as_ref(), &facts);
        let (journal, action) = next(&self.journal, orders.as_ref(), &facts);
        self.journal = journal;
        let mut longest = Duration::MAX;
        if let Some(plan) = plan.as_ref().filter(|_| !action.tells_of_itself())
            && !self.report(plan, &facts).await?
        {
            longest = REPORT_WITHIN;
        }
        if waits_for_host(&self.journal, &facts) && self.host.pass_checks() {
            return Ok(Some(HOST_AGAIN));
        }
        match action {
            Action::Wait => Ok(Some(longest)),
            Action::WaitUntil(_) => Ok(Some(LOOK_AGAIN)),
            action => {
                let outcome = self.act(&action).await?;
                self.journal = record(&self.journal, &action, outcome, &facts);
                Ok(None)
            }
        }
    }

    async fn act(&mut self, action: &Action) -> Result<Outcome> {
        match action {
            Action::Stage { slot, image } => {
                self.host.stage(slot, image);
                return Ok(Outcome::Staged(StagingCost::default()));
            }
            Action::Activate { slot } => {
                self.host.set_entry(slot, EntryFact::Trial { left: TRIAL_TRIES });
            }
            Action::Reboot => {
                self.kubelet(None).await?;
                self.host.reboot();
                let boot_id = self.host.boot_id().to_owned();
                self.kubelet(Some(&boot_id)).await?;
            }
            Action::Commit { slot } => {
                self.host.set_entry(slot, EntryFact::Permanent);
                self.account.committed();
            }
            other => bail!("nothing fails here, and yet the update machine wants {other:?}"),
        }
        Ok(Outcome::Done)
    }

    /// The first decision after the node became healthy: to write so down, or to keep the image at once.
    fn note_reaction(&mut self, plan: Option<&NodePlan>) {
        let Some(plan) = plan else { return };
        let noted = plan.spec.disruption.as_ref().is_some_and(|record| record.healthy_since.is_some());
        if (noted || plan.spec.target == Some(Target::Committed))
            && let Some(since) = self.healthy.take()
        {
            self.account.reacted(since.elapsed());
        }
    }

    /// Writes the status, unless the API server has it or it may wait; whether the API server has it now.
    async fn report(&mut self, plan: &NodePlan, facts: &Facts) -> Result<bool> {
        let uid = plan.metadata.uid.clone();
        let before = self.written.as_ref().filter(|(written, _)| *written == uid).map(|(_, status)| status);
        let before = before.or(plan.status.as_ref());
        let host = HostFacts { agent_version: "1".into(), architecture: "amd64".into(), manageable: true };
        let status = status(&self.journal, facts, None, host, plan.metadata.generation, before);
        let may_wait = before.is_some_and(|before| may_wait(before, &status));
        let new = (uid, status);
        if self.written.as_ref() == Some(&new) {
            return Ok(true);
        }
        if may_wait && self.waits_since.get_or_insert_with(Instant::now).elapsed() < REPORT_WITHIN {
            return Ok(false);
        }
        self.write(&new.1).await?;
        let healthy = new.1.phase == Phase::Trial && facts.host_checks_passed;
        let was_healthy = self.written.as_ref().is_some_and(|(_, status)| {
            status.phase == Phase::Trial && status.booted.as_ref().is_some_and(|boot| boot.host_checks_passed)
        });
        if healthy && !was_healthy {
            self.healthy = Some(Instant::now());
        }
        self.written = Some(new);
        self.waits_since = None;
        Ok(true)
    }

    /// Writes the status as the agent does, and as the agent of this node.
    async fn write(&self, status: &NodePlanStatus) -> Result<()> {
        let change = Patch::Merge(report(status)?);
        let params =
            PatchParams { field_manager: Some(AGENT_FIELD_MANAGER.into()), ..PatchParams::default() };
        let plans = Request::new(NodePlan::url_path(&(), None));
        let mut request = plans.patch_subresource("status", &self.name, &params, &change)?;
        request.headers_mut().insert(USER, HeaderValue::from_str(&self.user)?);
        request.headers_mut().insert(NODE_NAME, HeaderValue::from_str(&self.name)?);
        let _permit = self.permits.acquire().await?;
        self.client.request_text(request).await.context("report")?;
        Ok(())
    }

    /// The kubelet's report of a boot; without one, that of the cluster on a node that went away.
    async fn kubelet(&self, boot_id: Option<&str>) -> Result<()> {
        let _permit = self.permits.acquire().await?;
        kubelet::report(&self.client, &self.name, boot_id, boot_id.is_some()).await
    }
}
