//! Whether an image may be staged at all: asked before its first byte.

use evenkeel_registry::Registry;
use evenkeel_trust::Subject;

use super::{Meter, StageError, StageRequest};

/// Refuses an image that those who must have signed it did not sign.
pub(super) async fn check(
    request: &StageRequest,
    subject: &Subject,
    meter: &Meter,
) -> Result<(), StageError> {
    let Some(policy) = &request.trust else { return Ok(()) };
    policy.covers(subject)?;
    let registry = Registry::new(request.registry.clone())?;
    let evidence = tokio::select! {
        evidence = registry.signatures(subject) => evidence?,
        () = meter.stopped() => return Err(StageError::Stopped),
    };
    Ok(policy.check(subject, &evidence)?)
}
