//! Alerts and dashboard: good queries on metrics that there are, alerts that fire when they should, all of it in the
//! chart.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use evenkeel_e2e::process::Scratch;
use evenkeel_tests::{
    judges::{helm, promtool},
    root,
};
use serde_json::{Value, json};

use crate::{documented, names};

fn monitoring(file: &str) -> Result<String> {
    Ok(fs::read_to_string(root().join("charts/evenkeel/monitoring").join(file))?)
}

/// Each query of the dashboard, with its variables filled in.
fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&monitoring("dashboard.json")?)?;
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.filter_map(|target| target["expr"].as_str());
    Ok(queries.map(|query| query.replace("$image", ".*")).collect())
}

#[tokio::test]
async fn alerts_fire_when_they_should_and_not_otherwise() -> Result<()> {
    let scratch = Scratch::new("alerts")?;
    let (rules, cases) = (scratch.path().join("alerts.yaml"), scratch.path().join("cases.yaml"));
    let text = monitoring("alerts.yaml")?;
    fs::write(&rules, &text)?;
    fs::copy(root().join("tests/tests/watching/alert_cases.yaml"), &cases)?;
    let said =
        promtool(&["check", "rules", "--lint=all", "--lint-fatal", &rules.display().to_string()], "").await?;
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(said.contains(&format!("{} rules found", alerts.len())), "{said}");
    promtool(&["test", "rules", &cases.display().to_string()], "").await?;
    let cases = fs::read_to_string(&cases)?;
    for alert in alerts {
        // Each is seen firing; where it must not, its list is empty.
        let fires = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(cases.contains(&fires), "no case has {alert} fire");
    }
    Ok(())
}

#[tokio::test]
async fn queries_are_good_and_about_metrics_that_there_are() -> Result<()> {
    let queries = queries()?;
    assert!(queries.len() >= 16, "the dashboard has {} queries", queries.len());
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| json!({ "record": format!("dashboard:query:{number}"), "expr": query }))
        .collect();
    let scratch = Scratch::new("dashboard")?;
    let file = scratch.path().join("queries.yaml");
    fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string())?;
    let said = promtool(&["check", "rules", &file.display().to_string()], "").await?;
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
    let (used, known) = (names(&(queries.join("\n") + &monitoring("alerts.yaml")?)), documented()?);
    let unknown: BTreeSet<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
    // What nobody looks at is not worth its place, but for what says which version runs.
    let unused: Vec<_> = known.difference(&used).filter(|name| *name != "evenkeel_build_info").collect();
    assert!(unused.is_empty(), "neither shown nor watched: {unused:?}");
    Ok(())
}

#[tokio::test]
async fn the_chart_has_them_when_asked() -> Result<()> {
    let chart = root().join("charts/evenkeel").display().to_string();
    let plain = helm(&["template", "evenkeel", &chart, "--kube-version", "1.36.0"]).await?;
    for kind in ["PodMonitor", "PrometheusRule", "grafana_dashboard"] {
        assert!(!plain.contains(kind), "{kind} without being asked for");
    }
    let wanted = [
        "--set=metrics.podMonitor.enabled=true",
        "--set=metrics.rules.enabled=true,metrics.rules.labels.release=prometheus",
        "--set=metrics.dashboard.enabled=true",
    ];
    helm(&[&["lint", "--strict", &chart][..], &wanted].concat()).await?;
    let all =
        helm(&[&["template", "evenkeel", &chart, "--kube-version", "1.36.0"][..], &wanted].concat()).await?;
    let documents: Vec<Value> = all
        .split("\n---\n")
        .map(serde_saphyr::from_str)
        .collect::<Result<_, _>>()
        .context("read the chart")?;
    let one = |kind: &str, name: &str| {
        let is = |document: &&Value| document["kind"] == kind && document["metadata"]["name"] == name;
        documents.iter().find(is).with_context(|| format!("no {kind} {name}"))
    };
    let rules = one("PrometheusRule", "evenkeel-operator")?;
    let alerts: Value = serde_saphyr::from_str(&monitoring("alerts.yaml")?)?;
    assert_eq!(rules["spec"], alerts);
    assert_eq!(rules["metadata"]["labels"]["release"], "prometheus");
    let dashboard = one("ConfigMap", "evenkeel-operator-dashboard")?;
    let text = dashboard["data"]["evenkeel.json"].as_str().context("the ConfigMap has the dashboard")?;
    let shown: Value = serde_json::from_str(text)?;
    assert_eq!(shown, serde_json::from_str::<Value>(&monitoring("dashboard.json")?)?);
    let port = &one("PodMonitor", "evenkeel-operator")?["spec"]["podMetricsEndpoints"][0]["port"];
    let deployment = one("Deployment", "evenkeel-operator")?;
    assert_eq!(&deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"], port);
    Ok(())
}
