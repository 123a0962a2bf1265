//! The charts: clean, refused where they cannot protect, accepted by a real API server, and with a fence around agents.

use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_e2e::wait;
use evenkeel_tests::{
    cluster::Cluster,
    rights::{self, NAMESPACE},
    root,
};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::OnceCell;

/// Values that change what the chart renders; each must be a good chart too.
const VALUES: [&[&str]; 10] = [
    &[],
    &["--set", "operator.replicas=1"],
    &["--set", "operator.forceDrain=true"],
    &["--set", "apiServer.host=10.0.2.2", "--set", "apiServer.port=6443"],
    &["--set", "pullSecretName=registry-login"],
    &["--set", "caConfigMapName=registry-ca", "--set", "proxy.url=http://proxy.example:3128"],
    &["--set", "proxy.url=http://proxy.example:3128", "--set", "proxy.noProxy={10.0.0.0/8,registry.example}"],
    &["--set", "logLevel=debug"],
    &["--set", "operator.lifecycleConditions=always"],
    &["--set", "metrics.dashboard.enabled=true"],
];

fn chart(name: &str) -> String {
    root().join("charts").join(name).display().to_string()
}

/// A cluster with the chart's rights in it.
async fn fenced() -> Result<&'static Cluster> {
    static RIGHTS: OnceCell<()> = OnceCell::const_new();
    let cluster = Cluster::shared().await?;
    RIGHTS.get_or_try_init(|| rights::apply(cluster)).await?;
    Ok(cluster)
}

#[tokio::test]
async fn the_charts_are_clean() -> Result<()> {
    let cluster = Cluster::shared().await?;
    cluster.helm(&["lint", "--strict", &chart("evenkeel-crds")]).await?;
    for values in VALUES {
        let evenkeel = chart("evenkeel");
        let arguments: Vec<&str> =
            ["lint", "--strict", &evenkeel].into_iter().chain(values.iter().copied()).collect();
        cluster.helm(&arguments).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_api_server_takes_all_that_the_charts_render() -> Result<()> {
    let cluster = fenced().await?;
    for values in VALUES {
        let evenkeel = chart("evenkeel");
        let arguments =
            ["template", "evenkeel", &evenkeel, "--namespace", NAMESPACE, "--kube-version", "1.36.0"];
        let arguments: Vec<&str> = arguments.into_iter().chain(values.iter().copied()).collect();
        let rendered = cluster.helm(&arguments).await?;
        for kind in ["Deployment", "DaemonSet", "ValidatingAdmissionPolicy", "PodDisruptionBudget"] {
            assert!(rendered.contains(&format!("kind: {kind}\n")), "{values:?} renders no {kind}");
        }
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ];
        cluster.kubectl_with(&apply, &rendered).await.with_context(|| format!("{values:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn values_that_mean_nothing_are_refused() -> Result<()> {
    let cluster = Cluster::shared().await?;
    for wrong in ["operator.replicas=none", "noSuchValue=1", "operator.replicas=0"] {
        let said = cluster.helm(&["template", "evenkeel", &chart("evenkeel"), "--set", wrong]).await;
        let said = said.expect_err(wrong).to_string();
        let thing = wrong.split(['.', '=']).next().unwrap_or_default();
        assert!(said.contains(thing), "{wrong}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_cannot_fence_agents_is_refused_unless_told_otherwise() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let evenkeel = chart("evenkeel");
    let old = ["template", "evenkeel", &evenkeel, "--kube-version", "1.29.0"];
    let said = cluster.helm(&old).await.expect_err("an old cluster was taken").to_string();
    for word in ["1.30", "admissionPolicy.allowWithout"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    let told: Vec<&str> = old.into_iter().chain(["--set", "admissionPolicy.allowWithout=true"]).collect();
    let rendered = cluster.helm(&told).await?;
    assert!(
        !rendered.contains("kind: ValidatingAdmissionPolicy"),
        "a policy that an old cluster does not know"
    );
    Ok(())
}

/// Whether the token's owner may do something: verb, group, resource, subresource.
async fn may(client: &Client, verb: &str, group: &str, resource: &str, subresource: &str) -> Result<bool> {
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        namespace: ["leases", "secrets", "jobs"].contains(&resource).then(|| NAMESPACE.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[tokio::test]
async fn gates_may_look_at_what_a_labelled_role_gives_and_forced_drains_may_delete_pods() -> Result<()> {
    let cluster = Cluster::start().await?;
    rights::apply(&cluster).await?;
    let client = cluster.client().await?;
    let account = rights::account(&client, "operator").await?;
    let operator = cluster.plane.client_for(&rights::token(&client, &account, None).await?).await?;
    assert!(!may(&operator, "get", "ceph.rook.io", "cephclusters", "").await?);
    rights::let_gates_read(&cluster, "ceph.rook.io", "cephclusters").await?;
    // The rules are put together by a controller, a moment later.
    wait::until(Duration::from_secs(30), async || {
        anyhow::ensure!(may(&operator, "get", "ceph.rook.io", "cephclusters", "").await?, "not yet");
        Ok(())
    })
    .await?;
    assert!(!may(&operator, "patch", "ceph.rook.io", "cephclusters", "").await?);
    assert!(!may(&operator, "delete", "", "pods", "").await?);
    rights::apply_with(&cluster, &["--set", "operator.forceDrain=true"]).await?;
    wait::until(Duration::from_secs(30), async || {
        anyhow::ensure!(may(&operator, "delete", "", "pods", "").await?, "not yet");
        Ok(())
    })
    .await
}
