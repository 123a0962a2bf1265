//! What the API server refuses, object for object, with the whole message that a person gets; and what is next to it
//! and accepted. The rows are in `refused/`.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{cluster::Cluster, root};
use http::{Request, Response};
use kube::{Client, client::Body};
use serde::Deserialize;
use serde_json::{Value, json};

/// A table smaller than this lost rows.
const ROWS_MIN: usize = 150;
/// What the API server adds where a value has not even the right type. The rows are without it.
const UNCHECKED: &str = ", <nil>: Invalid value: null: some validation rules were not checked because the object was \
    invalid; correct the existing errors to complete validation]";

/// Objects of one kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: String,
    /// A spec that is accepted.
    base: Value,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What is changed in `base` (RFC 7386) to make a spec that is refused.
    set: Value,
    /// All that the API server says then, after the object's name.
    says: String,
    /// A change that is accepted.
    near: Option<Value>,
}

impl Table {
    fn spec(&self, change: &Value) -> Value {
        let mut spec = self.base.clone();
        merge(&mut spec, change);
        spec
    }
}

fn merge(into: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in change {
        if value.is_null() {
            into.as_object_mut().expect("made an object above").remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn tables() -> Result<Vec<(PathBuf, Table)>> {
    let files = fs::read_dir(root().join("tests/tests/api/refused"))?;
    let mut tables = Vec::new();
    for file in files {
        let path = file?.path();
        let text = fs::read_to_string(&path)?;
        let table = serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        tables.push((path, table));
    }
    Ok(tables)
}

/// Asks the API server to create an object, without keeping it; `validation` says what of unknown fields.
pub async fn create(client: &Client, kind: &str, spec: &Value, validation: &str) -> Result<Response<Body>> {
    let object = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": kind, "metadata": { "name": "judged" }, "spec": spec,
    });
    let path = format!(
        "/apis/evenkeel.dev/v1alpha1/{}s?dryRun=All&fieldValidation={validation}",
        kind.to_lowercase()
    );
    let request = Request::post(path).header("content-type", "application/json");
    Ok(client.send(request.body(object.to_string().into_bytes().into())?).await?)
}

/// What the API server says to a spec: nothing if it takes it, and else its message after the object's name.
async fn judge(client: &Client, kind: &str, spec: &Value) -> Result<Option<String>> {
    let response = create(client, kind, spec, "Strict").await?;
    if response.status().is_success() {
        return Ok(None);
    }
    let status: Value = serde_json::from_slice(&response.into_body().collect_bytes().await?)?;
    let said = status["message"].as_str().context("a refusal has a message")?;
    let invalid = format!("{kind}.evenkeel.dev \"judged\" is invalid: ");
    let undecodable = format!("{kind} in version \"v1alpha1\" cannot be handled as a {kind}: ");
    let said = said.strip_prefix(&invalid).or_else(|| said.strip_prefix(&undecodable)).unwrap_or(said);
    let alone = said.strip_suffix(UNCHECKED).and_then(|said| said.strip_prefix('['));
    Ok(Some(alone.unwrap_or(said).to_owned()))
}

#[tokio::test]
async fn every_row_is_refused_with_its_message_and_its_neighbour_is_accepted() -> Result<()> {
    let client = Cluster::shared().await?.client().await?;
    let (mut wrong, mut objects) = (Vec::new(), BTreeSet::new());
    for (path, table) in tables()? {
        let file = path.file_stem().unwrap_or_default().display();
        if let Some(said) = judge(&client, &table.kind, &table.base).await? {
            wrong.push(format!("{file}: the base is refused: {said}"));
        }
        for row in &table.rows {
            match judge(&client, &table.kind, &table.spec(&row.set)).await? {
                Some(said) if said == row.says => {}
                said => wrong.push(format!("{file}: {}\n  says: {said:?}\n  want: {:?}", row.set, row.says)),
            }
            objects.insert((table.kind.clone(), table.spec(&row.set).to_string()));
            let Some(near) = &row.near else { continue };
            if let Some(said) = judge(&client, &table.kind, &table.spec(near)).await? {
                wrong.push(format!("{file}: {near} is refused: {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(objects.len() >= ROWS_MIN, "only {} different objects are refused", objects.len());
    Ok(())
}
