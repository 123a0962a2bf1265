//! What is run at steps of a node's turn, and what its outcome means.

use evenkeel_crds::hook::{Hook, HookTime, OnHookFailure};
use jiff::{SignedDuration, Timestamp};

use crate::{policy::Policy, snapshot::NodeSeen};

/// A hook's Job that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSeen {
    /// The hook's name.
    pub name: String,
    /// Where its Job is.
    pub job: JobSeen,
}

/// Where a Job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSeen {
    /// It was made, and has not ended.
    Running {
        /// When it was made.
        since: Timestamp,
    },
    /// It succeeded.
    Succeeded,
    /// It failed, or its time was over.
    Failed {
        /// Why, and which Job it is.
        why: String,
    },
}

/// What a step's hooks ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All are done, or their failure is ignored.
    Done,
    /// This one is to be run.
    Run(String),
    /// One runs, or failed and blocks.
    Wait {
        /// For people.
        why: String,
        /// Until when it can be waited for; absent: until somebody acts.
        until: Option<Timestamp>,
    },
    /// One failed, and the node shall go back.
    Revert(String),
}

/// A Job is given this long to be made, started and to be seen to have failed beyond its own time.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What the hooks of a step ask for, for a node in its turn.
pub fn step(policy: &Policy, node: &NodeSeen, when: HookTime) -> Step {
    let of_this_step = policy.hooks.iter().filter(|hook| hook.when == when);
    for hook in of_this_step {
        let seen = node.checks.hooks.iter().find(|seen| seen.name == hook.name);
        match seen.map(|seen| &seen.job) {
            None => return Step::Run(hook.name.clone()),
            Some(JobSeen::Succeeded) => {}
            Some(JobSeen::Running { since }) => return running(hook, *since),
            Some(JobSeen::Failed { why }) => match hook.on_failure {
                OnHookFailure::Ignore => {}
                OnHookFailure::Block => {
                    let why = format!("hook {} failed: {why}; delete the Job to run it again", hook.name);
                    return Step::Wait { why, until: None };
                }
                OnHookFailure::Revert => return Step::Revert(format!("hook {} failed: {why}", hook.name)),
            },
        }
    }
    Step::Done
}

fn running(hook: &Hook, since: Timestamp) -> Step {
    let until = since + SignedDuration::from_secs(hook.timeout_seconds) + GRACE;
    Step::Wait { why: format!("hook {} runs since {since}", hook.name), until: Some(until) }
}
