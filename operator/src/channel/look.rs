//! One look at a channel: fetch if it is time, compare, write, tell.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_crds::ManagedOSVersionChannel;
use evenkeel_operator_core::channel::sync::{self, Change, Outcome};
use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{Channels, Known, Memory, existing, fetch, show, write};
use crate::{api::ApiError, guarded::Guarded, reconcile::ReconcileError, status::Problem};

/// First pause after a failed fetch; it doubles with each further one, up to the channel's interval.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// Time between two fetches where the object's says nothing that can be read.
const INTERVAL: Duration = Duration::from_hours(1);
/// Names of channels are labels of their versions.
const NAME_MAX: usize = 63;

/// Looks at a channel once.
pub(super) async fn look(
    object: Arc<Guarded<ManagedOSVersionChannel>>,
    channels: Arc<Channels>,
) -> Result<Action, ReconcileError> {
    let name = object.name_any();
    let channel = match &object.0 {
        Ok(channel) => channel,
        Err(invalid) => {
            tracing::warn!(
                channel = name,
                error = invalid.error,
                "this ManagedOSVersionChannel cannot be read"
            );
            return Ok(Action::await_change());
        }
    };
    if !channels.context.leadership.holds() {
        return Err(ReconcileError::NotLeading);
    }
    if channel.metadata.deletion_timestamp.is_some() {
        channels.forget(&name);
        return Ok(Action::await_change());
    }
    if !channel.spec.enabled {
        channels.forget(&name);
        show::disabled(&channels.context, channel).await?;
        return Ok(Action::await_change());
    }
    refresh(&channels, channel).await;
    let memory = channels.memory(&name);
    let outcome = match &memory.known {
        Some(known) => Some(follow(&channels, channel, known).await?),
        None => None,
    };
    show::shown(&channels.context, channel, &memory, outcome.as_ref()).await?;
    let pause = memory.next.map_or(RETRY_MIN, |next| next.saturating_duration_since(Instant::now()));
    Ok(Action::requeue(pause))
}

/// Fetches the list if it is time.
async fn refresh(channels: &Channels, channel: &ManagedOSVersionChannel) {
    let (name, generation) = (channel.name_any(), channel.metadata.generation);
    let before = Some(channels.memory(&name)).filter(|memory| memory.generation == generation);
    let before = before.unwrap_or_default();
    if before.next.is_some_and(|next| Instant::now() < next) {
        return;
    }
    let outcome = match name.len() {
        0..=NAME_MAX => fetch::fetch(channel, before.known.as_ref(), &channels.context.registry).await,
        _ => Err(Problem::lasting(
            "InvalidName",
            format!(
                "the name {name} has more than {NAME_MAX} characters, and is a label of each version: shorten it"
            ),
        )),
    };
    let interval = interval(&channel.spec.sync_interval);
    let metrics = channels.context.metrics.channels();
    let memory = match outcome {
        Ok(known) => {
            let now = Timestamp::now();
            metrics.fetched(&name, now);
            Memory {
                generation,
                known: known.or(before.known),
                failure: None,
                synced: Some(now),
                next: Some(Instant::now() + interval),
            }
        }
        Err(problem) => {
            tracing::warn!(channel = name, reason = problem.reason, "{}", problem.message);
            let failures = before.failure.map_or(0, |(_, failures)| failures) + 1;
            metrics.failed(&name, failures);
            let next = Some(Instant::now() + pause(failures, interval));
            Memory { generation, failure: Some((problem, failures)), next, ..before }
        }
    };
    channels.remember(&name, memory);
}

fn pause(failures: u32, interval: Duration) -> Duration {
    RETRY_MIN.saturating_mul(1 << (failures - 1).min(16)).min(interval)
}

/// Makes the versions what the channel lists.
async fn follow(
    channels: &Channels,
    channel: &ManagedOSVersionChannel,
    known: &Known,
) -> Result<Outcome, ApiError> {
    let context = &channels.context;
    let name = channel.name_any();
    let delete = channel.spec.delete_no_longer_in_sync_versions;
    let compare = |uses| sync::compare(&name, &known.listing, &existing(context), &uses, delete);
    let mut outcome = compare(write::uses_seen(context));
    if outcome.changes.iter().any(|change| matches!(change, Change::Delete(_))) {
        // What the watches show may be old, and what is deleted is gone.
        outcome = compare(write::uses_now(context).await?);
    }
    write::apply(context, channel, &outcome.changes).await?;
    Ok(outcome)
}

/// What `30m` or `1h30m` means; admission lets nothing else through.
fn interval(text: &str) -> Duration {
    let mut seconds = 0_u64;
    let mut number = 0_u64;
    for letter in text.chars() {
        let unit = match letter {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            digit => {
                let Some(digit) = digit.to_digit(10) else { return INTERVAL };
                number = number.saturating_mul(10).saturating_add(digit.into());
                continue;
            }
        };
        seconds = seconds.saturating_add(number.saturating_mul(unit));
        number = 0;
    }
    if seconds == 0 { INTERVAL } else { Duration::from_secs(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_read_as_admission_lets_it_through() {
        for (text, seconds) in [
            ("1h", 3600),
            ("90s", 90),
            ("1h30m", 5400),
            ("1h0m1s", 3601),
            ("", 3600),
            ("soon", 3600),
            ("0s", 3600),
        ] {
            assert_eq!(interval(text).as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn pauses_grow_to_the_interval() {
        let hour = Duration::from_hours(1);
        assert_eq!([1, 2, 3].map(|failures| pause(failures, hour).as_secs()), [5, 10, 20]);
        assert_eq!((pause(30, hour), pause(u32::MAX, hour)), (hour, hour));
    }
}
