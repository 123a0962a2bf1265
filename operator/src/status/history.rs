//! The last rollouts.

use evenkeel_crds::{
    ManagedOSImageStatus,
    condition::Time,
    managed_os_image::NodeCounts,
    rollout_status::{PastRollout, Progress, RolloutResult},
};
use jiff::Timestamp;

/// Rollouts that are remembered.
const HISTORY_MAX: usize = 10;

/// The history after a look: a rollout comes into it when its last node is done, or when another one takes its place.
pub fn of(
    before: &ManagedOSImageStatus,
    rollout: Option<&Progress>,
    nodes: &NodeCounts,
    now: Timestamp,
) -> Vec<PastRollout> {
    let mut history = before.history.clone();
    let left = before.rollout.as_ref().filter(|was| rollout.is_some_and(|is| is.digest != was.digest));
    if let Some(left) = left.filter(|left| left.finished_at.is_none()) {
        let failed = before.rejected.as_ref().is_some_and(|rejected| rejected.digest == left.digest);
        let result = if failed { RolloutResult::Failed } else { RolloutResult::Superseded };
        add(&mut history, left, result, &before.nodes, Time(now));
    }
    if let Some((rollout, at)) = rollout.and_then(|rollout| Some((rollout, rollout.finished_at?))) {
        let whole = nodes.updated >= nodes.total;
        let result = if whole { RolloutResult::Finished } else { RolloutResult::Incomplete };
        add(&mut history, rollout, result, nodes, at);
    }
    history
}

/// A node that joins later, or is mended, ends the rollout once more: that is no other rollout.
fn add(history: &mut Vec<PastRollout>, of: &Progress, result: RolloutResult, nodes: &NodeCounts, at: Time) {
    let past = PastRollout {
        digest: of.digest.clone(),
        version: of.version.clone(),
        started_at: of.started_at,
        ended_at: at,
        result,
        updated: nodes.updated,
        failed: nodes.failed,
        total: nodes.total,
    };
    let same = |known: &&mut PastRollout| known.digest == past.digest && known.started_at == past.started_at;
    match history.iter_mut().find(same) {
        Some(known) if known.result == RolloutResult::Incomplete && result == RolloutResult::Finished => {
            *known = past;
        }
        Some(_) => {}
        None => history.insert(0, past),
    }
    history.truncate(HISTORY_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn rollout(number: i64, finished: bool) -> Progress {
        Progress {
            digest: format!("sha256:{number}"),
            started_at: Some(at(number)),
            finished_at: finished.then(|| at(number + 50)),
            ..Progress::default()
        }
    }

    #[test]
    fn ten_rollouts_are_remembered_each_once() {
        let mut status = ManagedOSImageStatus::default();
        let nodes = NodeCounts { total: 3, updated: 3, ..NodeCounts::default() };
        for number in 0..25 {
            for finished in [false, true, true, false, true] {
                let next = rollout(number * 100, finished);
                status.history = of(&status, Some(&next), &nodes, at(number * 100).0);
                status.rollout = Some(next);
            }
        }
        assert_eq!(status.history.len(), HISTORY_MAX);
        assert_eq!(status.history[0].digest, "sha256:2400");
        assert_eq!((status.history[0].ended_at, status.history[0].updated), (at(2450), 3));
        assert!(status.history.iter().all(|past| past.result == RolloutResult::Finished));
    }

    #[test]
    fn a_rollout_that_ends_without_every_node_is_incomplete_until_they_are_mended() {
        let mut status = ManagedOSImageStatus::default();
        let mut ended = |updated, failed| {
            let nodes = NodeCounts { total: 3, updated, failed, ..NodeCounts::default() };
            status.history = of(&status, Some(&rollout(0, true)), &nodes, at(50).0);
            let [past] = &status.history[..] else { panic!("{:?}", status.history) };
            (past.result, past.updated, past.failed)
        };
        assert_eq!(ended(2, 1), (RolloutResult::Incomplete, 2, 1));
        assert_eq!(ended(3, 0), (RolloutResult::Finished, 3, 0));
        assert_eq!(ended(2, 1), (RolloutResult::Finished, 3, 0), "what fails later is another story");
    }

    #[test]
    fn a_rollout_that_gives_way_is_remembered_with_what_became_of_it() {
        let nodes = NodeCounts { total: 3, updated: 1, ..NodeCounts::default() };
        let mut before =
            ManagedOSImageStatus { rollout: Some(rollout(0, false)), nodes, ..Default::default() };
        let next = rollout(100, false);
        let history = of(&before, Some(&next), &NodeCounts::default(), at(100).0);
        assert_eq!((history[0].result, history[0].updated), (RolloutResult::Superseded, 1));
        before.rejected = Some(evenkeel_crds::managed_os_image::Rejected {
            digest: "sha256:0".into(),
            node: "n1".into(),
            message: "panic".into(),
            condemned: true,
        });
        assert_eq!(
            of(&before, Some(&next), &NodeCounts::default(), at(100).0)[0].result,
            RolloutResult::Failed
        );
        assert!(of(&before, None, &NodeCounts::default(), at(100).0).is_empty(), "not resolved is not over");
    }
}
