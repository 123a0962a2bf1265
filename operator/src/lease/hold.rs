//! Takes the lease, keeps it, and gives it back.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Leadership, Move, Observed, decide};
use crate::api::{ApiError, call, with_causes};

/// Name of the lease.
const NAME: &str = "evenkeel-operator";
/// A pause between two looks: a seventh of the lease's duration, so that several renewals may fail before it is lost.
const LOOKS_PER_LEASE: u32 = 7;

/// Why holding the lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to end, and the lease was given back.
    Released,
    /// It could not be renewed in time, or another replica has it.
    Lost,
}

/// The lease.
pub struct Lease {
    api: Api<Object>,
    namespace: String,
    me: String,
    duration: Duration,
    leadership: Leadership,
    seen: Option<(Observed, Object)>,
    /// The holder that was logged.
    told: Option<String>,
}

impl Lease {
    /// The lease in `namespace`, for a replica of the name `me`.
    pub fn new(client: Client, namespace: &str, me: &str, seconds: u16) -> Self {
        let duration = Duration::from_secs(seconds.into());
        // Two thirds: the rest is the time that a write in flight may still need.
        let leadership = Leadership::new(duration * 2 / 3);
        let api = Api::namespaced(client, namespace);
        let (namespace, me) = (namespace.to_owned(), me.to_owned());
        Self { api, namespace, me, duration, leadership, seen: None, told: None }
    }

    /// Whether this process may act, for whoever acts.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until the lease is ours. An API server that is away is waited for.
    pub async fn acquire(&mut self) {
        loop {
            match self.turn().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    error = with_causes(&error),
                    namespace = self.namespace,
                    "cannot take the lease; trying again"
                ),
            }
            sleep(self.pause()).await;
        }
    }

    /// Keeps the lease until `stop` says so, then gives it back; or until it is lost.
    pub async fn hold(&mut self, mut stop: watch::Receiver<bool>) -> Ended {
        loop {
            tokio::select! {
                // The sender lives as long as the process; when it is gone, so are we.
                _ = stop.wait_for(|stop| *stop) => {
                    self.release().await;
                    return Ended::Released;
                }
                () = sleep(self.pause()) => {}
            }
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => return self.lost("another replica has the lease"),
                Err(error) => {
                    tracing::warn!(error = with_causes(&error), "cannot renew the lease; trying again");
                }
            }
            if !self.leadership.holds() {
                return self.lost("the lease could not be renewed in time");
            }
        }
    }

    fn lost(&self, why: &str) -> Ended {
        self.leadership.give_up();
        tracing::error!("{why}: no further decision is made here");
        Ended::Lost
    }

    fn pause(&self) -> Duration {
        self.duration / LOOKS_PER_LEASE
    }

    /// One look, and what follows from it. True if the lease is ours after it.
    async fn turn(&mut self) -> Result<bool, ApiError> {
        // Whatever the look takes, it must end while there is still time for the next one.
        let limit = self.duration / 3;
        timeout(limit, self.look()).await.unwrap_or_else(|_| Err(ApiError::Timeout { what: "lease".into() }))
    }

    async fn look(&mut self) -> Result<bool, ApiError> {
        if self.leadership.holds() {
            // Nobody else writes it while it is ours: what was written last is what is there.
            match self.renew().await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_stale() => {}
                Err(error) => return Err(error),
            }
        }
        let found = call("get the lease", self.api.get_opt(NAME)).await?;
        let now = self.leadership.now();
        self.observe(found, now);
        match decide(self.seen.as_ref().map(|(seen, _)| seen), &self.me, now) {
            Move::WaitUntil(_) => {
                self.note_holder();
                Ok(false)
            }
            Move::Acquire | Move::Renew => match self.renew().await {
                Ok(()) => Ok(true),
                // Somebody was quicker; the next look shows who.
                Err(error) if error.is_stale() => Ok(self.leadership.holds()),
                Err(error) => Err(error),
            },
        }
    }

    fn note_holder(&mut self) {
        let holder = self.seen.as_ref().and_then(|(seen, _)| seen.holder.clone());
        if holder != self.told {
            tracing::info!(
                holder = holder.as_deref().unwrap_or_default(),
                "another replica has the lease; waiting"
            );
            self.told = holder;
        }
    }

    fn observe(&mut self, found: Option<Object>, now: Duration) {
        let Some(object) = found else {
            self.seen = None;
            return;
        };
        let spec = object.spec.clone().unwrap_or_default();
        let renewal = object.metadata.resource_version.clone().unwrap_or_default();
        let known = self.seen.as_ref().filter(|(seen, _)| seen.renewal == renewal);
        let since = known.map_or(now, |(seen, _)| seen.since);
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(self.duration, Duration::from_secs);
        self.seen = Some((Observed { holder: spec.holder_identity, renewal, duration, since }, object));
    }

    /// Writes that it is ours; so it is from before that was asked for.
    async fn renew(&mut self) -> Result<(), ApiError> {
        let now = self.leadership.now();
        self.write(Some(self.me.clone())).await?;
        self.leadership.renewed_at(now);
        Ok(())
    }

    async fn write(&mut self, holder: Option<String>) -> Result<(), ApiError> {
        let now = MicroTime(Timestamp::now());
        let before = self.seen.as_ref().map(|(_, object)| object);
        let spec = before.and_then(|object| object.spec.clone()).unwrap_or_default();
        let same = spec.holder_identity == holder;
        let spec = LeaseSpec {
            holder_identity: holder,
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: if same { spec.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!same)),
            ..spec
        };
        let params = PostParams::default();
        let written = if let Some(before) = before {
            // The object carries the version that was read: a replica that was quicker makes this a conflict.
            let object = Object { spec: Some(spec), ..before.clone() };
            call("renew the lease", self.api.replace(NAME, &params, &object)).await?
        } else {
            let mut object = Object { spec: Some(spec), ..Object::default() };
            object.metadata.name = Some(NAME.into());
            call("create the lease", self.api.create(&params, &object)).await?
        };
        self.observe(Some(written), self.leadership.now());
        Ok(())
    }

    async fn release(&mut self) {
        self.leadership.give_up();
        let released = async {
            let found = call("get the lease", self.api.get_opt(NAME)).await?;
            let now = self.leadership.now();
            self.observe(found, now);
            let ours = self.seen.as_ref().is_some_and(|(seen, _)| seen.holder.as_ref() == Some(&self.me));
            if ours { self.write(None).await } else { Ok(()) }
        };
        match released.await {
            Ok(()) => tracing::info!("the lease is given back"),
            Err(error) => {
                tracing::warn!(
                    error = with_causes(&error),
                    "cannot give the lease back: it runs out by itself"
                );
            }
        }
    }
}
