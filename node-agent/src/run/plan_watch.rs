//! This node's plan as the API server last showed it, and the way back for its status.

use std::time::Duration;

use evenkeel_crds::{NodePlan, NodePlanStatus, names::AGENT_FIELD_MANAGER, node_plan::PlanError};
use evenkeel_node_agent_core::machine::{REPORT_WITHIN, may_wait, report};
use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// A status write takes milliseconds; one that takes this long is tried again in the next turn.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// This node's plan.
pub struct PlanWatch {
    api: Api<NodePlan>,
    node: String,
    seen: watch::Receiver<Option<NodePlan>>,
    /// What was written last, and to which plan: one that was deleted and made anew has nothing of it.
    written: Option<(Option<String>, NodePlanStatus)>,
    /// Since when a status waits for one that says more.
    waits_since: Option<Instant>,
}

/// Whether the list that comes after the watch was away has the plan: one that it lacks was deleted meanwhile.
#[derive(Default)]
struct Listed(bool);

impl Listed {
    /// Tells what an event says of the plan, if it says anything.
    fn note(&mut self, event: watcher::Event<NodePlan>, mut tell: impl FnMut(Option<NodePlan>)) {
        match event {
            watcher::Event::Init => self.0 = false,
            watcher::Event::InitApply(plan) => {
                self.0 = true;
                tell(Some(plan));
            }
            watcher::Event::InitDone if self.0 => {}
            watcher::Event::InitDone | watcher::Event::Delete(_) => tell(None),
            watcher::Event::Apply(plan) => tell(Some(plan)),
        }
    }
}

impl PlanWatch {
    /// Starts to watch the plan of `node`, for as long as the process lives.
    pub fn start(client: Client, node: &str) -> Self {
        let api: Api<NodePlan> = Api::all(client);
        let (sender, seen) = watch::channel(None);
        let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
        let stream = watcher(api.clone(), config).default_backoff();
        tokio::spawn(async move {
            pin_mut!(stream);
            let mut listed = Listed::default();
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => listed.note(event, |plan| {
                        sender.send_replace(plan);
                    }),
                    Err(error) => tracing::warn!(%error, "cannot watch this node's plan; trying again"),
                }
            }
        });
        Self { api, node: node.to_owned(), seen, written: None, waits_since: None }
    }

    /// The plan, if there is one.
    pub fn plan(&self) -> Option<NodePlan> {
        self.seen.borrow().clone()
    }

    /// Waits until the plan changes, or `longest` is over.
    pub async fn changed(&mut self, longest: Duration) {
        // An error means that the watch ended, which it does with the process only.
        let _ = timeout(longest, self.seen.changed()).await;
    }

    /// Writes the status unless the API server has it already, or it may wait; tells whether it has it now. A failure is
    /// logged, and made up for by a later turn: the machine's own safety never waits for the cluster.
    pub async fn report(&mut self, status: NodePlanStatus) -> bool {
        let Some(plan) = self.plan() else { return true };
        if self.written == Some((plan.metadata.uid.clone(), status.clone())) {
            self.waits_since = None;
            return true;
        }
        if self.may_wait(&status) {
            return false;
        }
        match timeout(WRITE_TIMEOUT, self.write(&status)).await {
            Ok(Ok(())) => {
                self.written = Some((plan.metadata.uid, status));
                self.waits_since = None;
                return true;
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot write the plan's status; trying again"),
            Err(_) => tracing::warn!("writing the plan's status took too long; trying again"),
        }
        false
    }

    /// Whether nobody acts on what is new, and it has not waited for long: the next status says it, too.
    fn may_wait(&mut self, status: &NodePlanStatus) -> bool {
        let before = self.status_before();
        if !before.is_some_and(|before| may_wait(&before, status)) {
            return false;
        }
        self.waits_since.get_or_insert_with(Instant::now).elapsed() < REPORT_WITHIN
    }

    /// Whether a status waits for one that says more.
    pub fn has_more_to_say(&self) -> bool {
        self.waits_since.is_some_and(|since| since.elapsed() < REPORT_WITHIN)
    }

    async fn write(&self, status: &NodePlanStatus) -> Result<(), kube::Error> {
        let patch = Patch::Merge(report(status).map_err(kube::Error::SerdeError)?);
        let params =
            PatchParams { field_manager: Some(AGENT_FIELD_MANAGER.into()), ..PatchParams::default() };
        self.api.patch_status(&self.node, &params, &patch).await.map(|_| ())
    }

    /// Writes an error into the status that was reported last, when nothing else can be said.
    pub async fn report_error(&mut self, error: PlanError) {
        if let Some(before) = self.status_before() {
            self.report(NodePlanStatus { error: Some(error), ..before }).await;
        }
    }

    /// The status that the API server has, as far as is known.
    pub fn status_before(&self) -> Option<NodePlanStatus> {
        let plan = self.plan()?;
        match &self.written {
            Some((uid, status)) if *uid == plan.metadata.uid => Some(status.clone()),
            _ => plan.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_was_deleted_while_nobody_watched_is_gone() {
        let plan = || NodePlan::new("node-1", evenkeel_crds::NodePlanSpec::default());
        let (mut listed, mut seen) = (Listed::default(), None);
        let mut note = |event| {
            listed.note(event, |plan| seen = plan);
            seen.is_some()
        };
        assert!(!note(watcher::Event::Init));
        assert!(note(watcher::Event::InitApply(plan())));
        assert!(note(watcher::Event::InitDone));
        // It stays what it was while it is listed anew.
        assert!(note(watcher::Event::Init));
        assert!(!note(watcher::Event::InitDone));
        assert!(note(watcher::Event::Apply(plan())));
        assert!(!note(watcher::Event::Delete(plan())));
    }
}
