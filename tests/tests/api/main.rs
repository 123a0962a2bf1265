//! The API types in a real API server: what it accepts and refuses, with which words, what it fills in and shows.

mod channels;
mod images;
mod plans;
mod refused;
mod shown;
mod turns;
mod unknown;
mod versions;

use anyhow::Result;
use evenkeel_tests::cluster::Cluster;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, ValidationDirective},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC \
    KEY-----\n";

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("evenkeel.dev", "v1alpha1", kind));
    Api::all_with(client.clone(), &resource)
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// Has the API server judge a spec without keeping it: `None`, or what it says.
async fn judge(client: &Client, kind: &str, spec: &Value) -> Option<String> {
    let params = PatchParams { dry_run: true, ..PatchParams::apply("tests") };
    let params = params.validation(ValidationDirective::Strict);
    let patch = Patch::Apply(object(kind, "judged", spec));
    api(client, kind).patch("judged", &params, &patch).await.err().map(|error| error.to_string())
}

async fn accepted(kind: &str, specs: &[Value]) -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    for spec in specs {
        let said = judge(&client, kind, spec).await;
        assert!(said.is_none(), "{spec} was refused: {}", said.unwrap_or_default());
    }
    Ok(())
}
