//! Registries that want to know who asks.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    image::Recipe,
    machine::Machine,
    odd_server::{Habits, OddServer},
    registry::{PASSWORD, Registry, USER},
};

fn login(machine: &mut Machine, registry: &str, password: &str) {
    let path = machine.folder.path().join("config.json");
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    fs::write(&path, json!({ "auths": { registry: { "auth": auth } } }).to_string()).unwrap();
    machine.options.docker_config = Some(path);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_and_a_wrong_one_says_so() {
    let mut machine = Machine::with_old_system().await;
    let registry = Registry::with_login();
    let name = registry.push(&Recipe::default().build(), "team/os:1").await;
    let host = registry.address();
    let words = [host, "team/os"];
    let with = |word: &'static str| [&words[..], &[word]].concat();
    machine.refused_untouched(&name, "Unauthorized", true, &with("config.json")).await;
    login(&mut machine, host, "wrong");
    machine.refused_untouched(&name, "Unauthorized", true, &with("check the credentials for it in")).await;
    login(&mut machine, "other.example", PASSWORD);
    machine.refused_untouched(&name, "Unauthorized", true, &with("has no credentials for it")).await;
    login(&mut machine, host, PASSWORD);
    machine.stage(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_and_renewed_when_it_runs_out() {
    let mut machine = Machine::empty();
    let image = Recipe::default().build();
    // Each token is good for three requests: manifest, configuration and the first layer use up the first.
    let server = OddServer::start(&image, Habits { token_uses: Some(3), ..Habits::default() }).await;
    login(&mut machine, server.address(), PASSWORD);
    machine.stage(&server.reference()).await.unwrap();
    assert!(server.tokens_given() >= 2, "one token is not enough for all requests");
    login(&mut machine, server.address(), "wrong");
    let error = machine.stage_into(&server.reference(), "a", &std::sync::Arc::default()).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized");
}
