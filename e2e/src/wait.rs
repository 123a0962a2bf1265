//! Waiting for what a cluster will come to.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use tokio::time::{sleep, timeout};

const POLL: Duration = Duration::from_millis(500);

/// Asks until there is an answer, or `limit` is over; the error is the last one that was given.
pub async fn until<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let answer = timeout(limit, ask()).await.context("no answer").flatten();
        match answer {
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("waited {} s in vain", limit.as_secs())));
            }
            Err(_) => sleep(POLL).await,
            answer => return answer,
        }
    }
}

/// Whether a Node's condition `Ready` is true.
pub fn ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
