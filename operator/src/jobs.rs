//! Jobs that are run for nodes: for hooks and for gates. Each has a name that another operator would give it too, so that
//! one that is killed finds its Jobs again.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use evenkeel_crds::{
    ManagedOSImage,
    hook::JobTemplate,
    names::{JOB_NODE, JOB_OF, JOB_TURN, OPERATOR_FIELD_MANAGER},
};
use evenkeel_operator_core::hooks::JobSeen;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::EnvVar,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, PostParams, Preconditions, PropagationPolicy},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    api::{ApiError, call, with_causes},
    context::Context,
};

/// How long a Job that failed is kept after the turn that it was of, for its log.
const FAILED_KEPT_SECONDS: i64 = 86_400;

/// What a Job is of.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A hook, by its name.
    Hook(&'a str),
    /// A gate, by its name.
    Gate(&'a str),
}

/// Which Job: one for each node's turn.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The image object.
    pub image: &'a Arc<ManagedOSImage>,
    /// The node.
    pub node: &'a str,
    /// The node's turn.
    pub turn: &'a str,
    /// What it is of.
    pub what: What<'a>,
    /// The step, for its environment.
    pub step: &'a str,
    /// Seconds that it may take.
    pub timeout_seconds: i64,
}

impl Of<'_> {
    /// The Job's name.
    pub fn name(&self) -> String {
        let (kind, name) = match self.what {
            What::Hook(name) => (name, name),
            // The name of a gate may hold what that of a Job may not.
            What::Gate(name) => ("gate", name),
        };
        let uid = self.image.uid().unwrap_or_default();
        let hash = short_hash(&format!(
            "{uid} {} {} {:?} {name} {}",
            self.node,
            self.turn,
            self.step,
            label(self.what)
        ));
        format!("evenkeel-{kind}-{hash}")
    }
}

/// The label of Jobs of a turn.
pub fn turn_label(image: &ManagedOSImage, node: &str, turn: &str) -> String {
    short_hash(&format!("{} {node} {turn}", image.uid().unwrap_or_default()))
}

/// The label that says what a Job is of.
fn label(what: What<'_>) -> String {
    match what {
        What::Hook(name) => format!("hook.{name}"),
        What::Gate(_) => "gate".to_owned(),
    }
}

/// Twelve digits that stand for a text.
pub fn short_hash(of: &str) -> String {
    // 48 bits: turns of one cluster that are there at the same time are some thousands.
    let mut hex = String::new();
    for byte in Sha256::digest(of).iter().take(6) {
        // Writing into a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Makes the Job; the inner error says what is wrong with it. One that is there already is fine.
pub async fn run(
    context: &Context,
    of: &Of<'_>,
    template: &JobTemplate,
) -> Result<Result<(), String>, ApiError> {
    let job = match build(of, template, &context.own_pod.namespace) {
        Ok(job) => job,
        Err(why) => return Ok(Err(why)),
    };
    let params = PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.into()), ..PostParams::default() };
    match call(format!("create Job {}", of.name()), jobs(context).create(&params, &job)).await {
        Ok(_) | Err(ApiError::Conflict { .. }) => Ok(Ok(())),
        Err(error) if error.code().is_some_and(|code| (400..500).contains(&code) && code != 429) => {
            Ok(Err(with_causes(&error)))
        }
        Err(error) => Err(error),
    }
}

/// The Job as the API server has it.
pub async fn get(context: &Context, of: &Of<'_>) -> Result<Option<Job>, ApiError> {
    let name = of.name();
    call(format!("get Job {name}"), jobs(context).get_opt(&name)).await
}

/// Deletes a Job and its pods.
pub async fn delete(context: &Context, job: &Job) -> Result<(), ApiError> {
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    let name = job.name_any();
    match call(format!("delete Job {name}"), jobs(context).delete(&name, &params)).await {
        Err(error) if !error.is_stale() => Err(error),
        _ => Ok(()),
    }
}

/// Deletes the Jobs of an image object that are of no turn any more; `turns` are the labels of those that are.
pub async fn tidy(
    context: &Context,
    image: &ManagedOSImage,
    jobs: &[Arc<Job>],
    turns: &BTreeSet<String>,
) -> Result<(), ApiError> {
    for job in jobs {
        let ours = job.owner_references().iter().any(|owner| Some(&owner.uid) == image.uid().as_ref());
        let turn = job.labels().get(JOB_TURN);
        if ours && !turn.is_some_and(|turn| turns.contains(turn)) && !is_kept(job, Timestamp::now()) {
            delete(context, job).await?;
        }
    }
    Ok(())
}

/// Whether a Job failed not long ago.
fn is_kept(job: &Job, now: Timestamp) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failed = conditions.into_iter().find(|one| one.type_ == "Failed" && one.status == "True");
    let at = failed.and_then(|one| one.last_transition_time.as_ref()).map(|time| time.0);
    at.is_some_and(|at| now.duration_since(at).as_secs() < FAILED_KEPT_SECONDS)
}

/// Where a Job is.
pub fn seen(job: &Job) -> JobSeen {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in conditions.into_iter().filter(|condition| condition.status == "True") {
        match condition.type_.as_str() {
            "Complete" => return JobSeen::Succeeded,
            "Failed" => {
                let reason = condition.reason.clone().unwrap_or_default();
                let message = condition.message.clone().unwrap_or_default();
                let title = format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any());
                return JobSeen::Failed { why: format!("Job {title}: {reason}: {message}") };
            }
            _ => {}
        }
    }
    JobSeen::Running { since: job.creation_timestamp().map_or_else(Timestamp::now, |time| time.0) }
}

/// The parts of a template that are read.
#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    metadata: ObjectMeta,
    spec: JobSpec,
}

/// The Job that a template asks for, or what is wrong with the template.
pub fn build(of: &Of<'_>, template: &JobTemplate, namespace: &str) -> Result<Job, String> {
    let wrong = |error: serde_json::Error| format!("the template is not that of a Job: {error}");
    let Template { metadata, mut spec } = Template::deserialize(&template.0).map_err(wrong)?;
    let own = spec.active_deadline_seconds.unwrap_or(i64::MAX);
    spec.active_deadline_seconds = Some(own.min(of.timeout_seconds));
    // The operator deletes it, and not before it knows how it ended.
    spec.ttl_seconds_after_finished = None;
    let Some(pod) = spec.template.spec.as_mut().filter(|pod| !pod.containers.is_empty()) else {
        return Err("the template is not that of a Job: it has no containers".to_owned());
    };
    pod.restart_policy.get_or_insert_with(|| "Never".to_owned());
    let image = of.image.status.as_ref().and_then(|status| status.image.clone()).unwrap_or_default();
    let variables = [
        ("EVENKEEL_NODE", of.node),
        ("EVENKEEL_IMAGE", image.as_str()),
        ("EVENKEEL_PLAN", of.turn),
        ("EVENKEEL_STEP", of.step),
    ];
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        env.retain(|known| variables.iter().all(|(name, _)| known.name != *name));
        env.extend(variables.map(|(name, value)| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        }));
    }
    let mut job = Job { metadata, spec: Some(spec), status: None };
    let metadata = &mut job.metadata;
    metadata.name = Some(of.name());
    metadata.generate_name = None;
    metadata.namespace = Some(namespace.to_owned());
    metadata.finalizers = None;
    metadata.owner_references = of.image.controller_owner_ref(&()).map(|owner| vec![owner]);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(JOB_OF.to_owned(), label(of.what));
    labels.insert(JOB_TURN.to_owned(), turn_label(of.image, of.node, of.turn));
    metadata.annotations.get_or_insert_default().insert(JOB_NODE.to_owned(), of.node.to_owned());
    Ok(job)
}

fn jobs(context: &Context) -> Api<Job> {
    Api::namespaced(context.clients.main.clone(), &context.own_pod.namespace)
}

// Values are written where they are handed over.
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image() -> Arc<ManagedOSImage> {
        let mut image = ManagedOSImage::new("os", evenkeel_crds::ManagedOSImageSpec::default());
        image.metadata.uid = Some("uid-1".into());
        Arc::new(image)
    }

    fn of<'a>(image: &'a Arc<ManagedOSImage>, node: &'a str, turn: &'a str) -> Of<'a> {
        Of { image, node, turn, what: What::Hook("drain-lb"), step: "BeforeCordon", timeout_seconds: 300 }
    }

    fn template() -> JobTemplate {
        JobTemplate(json!({
            "metadata": { "labels": { "team": "net" }, "name": "mine" },
            "spec": {
                "ttlSecondsAfterFinished": 1, "backoffLimit": 2,
                "template": { "spec": {
                    "containers": [{ "name": "c", "image": "i", "env": [{ "name": "EVENKEEL_NODE", "value": "x" }] }],
                } },
            },
        }))
    }

    #[test]
    fn a_job_is_what_was_asked_for_with_our_name_time_and_node() {
        let image = image();
        let job = build(&of(&image, "n1", "p1"), &template(), "system").unwrap();
        assert_eq!(job.namespace().as_deref(), Some("system"));
        assert!(job.name_any().starts_with("evenkeel-drain-lb-"), "{}", job.name_any());
        assert_eq!((job.labels()["team"].as_str(), job.labels()[JOB_OF].as_str()), ("net", "hook.drain-lb"));
        let spec = job.spec.unwrap();
        assert_eq!((spec.active_deadline_seconds, spec.backoff_limit), (Some(300), Some(2)));
        assert_eq!(spec.ttl_seconds_after_finished, None);
        let pod = spec.template.spec.unwrap();
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        let env = pod.containers[0].env.clone().unwrap();
        let nodes: Vec<_> = env.iter().filter(|one| one.name == "EVENKEEL_NODE").collect();
        assert_eq!((nodes.len(), nodes[0].value.as_deref()), (1, Some("n1")));
    }

    #[test]
    fn a_name_is_the_same_for_the_same_turn_only() {
        let image = image();
        let name = |node, turn| of(&image, node, turn).name();
        assert_eq!(name("n1", "p1"), name("n1", "p1"));
        assert_ne!(name("n1", "p1"), name("n2", "p1"));
        assert_ne!(name("n1", "p1"), name("n1", "p2"));
    }

    #[test]
    fn what_is_no_job_is_named() {
        let image = image();
        for (spec, named) in [
            (json!({ "spec": {} }), "containers"),
            (json!({ "spec": { "template": { "spec": { "containers": "none" } } } }), "not that of a Job"),
            (json!({ "spec": 3 }), "not that of a Job"),
        ] {
            let said = build(&of(&image, "n1", "p"), &JobTemplate(spec.clone()), "s").unwrap_err();
            assert!(said.contains(named), "{spec}: {said}");
        }
    }

    #[test]
    fn a_job_runs_until_a_condition_says_otherwise() {
        let with = |kind: &str, status: &str| -> Job {
            let condition = json!({ "type": kind, "status": status, "reason": "R", "message": "m" });
            let status = json!({ "conditions": [condition] });
            serde_json::from_value(json!({ "metadata": { "name": "j", "namespace": "s" }, "status": status }))
                .unwrap()
        };
        assert_eq!(seen(&with("Complete", "True")), JobSeen::Succeeded);
        assert!(matches!(seen(&with("Complete", "False")), JobSeen::Running { .. }));
        assert!(
            matches!(seen(&with("FailureTarget", "True")), JobSeen::Running { .. }),
            "its pods still run"
        );
        let JobSeen::Failed { why } = seen(&with("Failed", "True")) else { panic!() };
        assert_eq!(why, "Job s/j: R: m");
    }
}
