//! The table of defaults in docs/rollout.md says what the API server fills in.

use std::collections::BTreeMap;

use evenkeel_crds::managed_os_image::ManagedOSImage;
use kube_core::CustomResourceExt as _;
use serde_json::Value;

const GROUPS: [&str; 4] = ["rollout", "drain", "reboot", "healthGates"];
/// Others' types, and those whose fields are in the table already.
const ELSEWHERE: [&str; 5] = ["selector", "podSelector", "template", "stagingWindows", "window"];

/// Fields by their path, and how the table has their default: a value, `required`, or `none` and what that means.
fn fields(path: &str, schema: &Value, is_required: bool, found: &mut BTreeMap<String, String>) {
    let children = schema.get("properties").or_else(|| schema.pointer("/items/properties"));
    let has_default = schema.get("default").is_some();
    // What a group has by default its fields say.
    if children.is_none() || !has_default {
        let default = match schema.get("default") {
            Some(Value::String(word)) if !word.is_empty() => format!("`{word}`"),
            Some(value) => format!("`{value}`"),
            None if is_required => "required".to_owned(),
            None => "none".to_owned(),
        };
        found.insert(path.to_owned(), default);
    }
    if ELSEWHERE.iter().any(|name| path.ends_with(&format!(".{name}"))) {
        return;
    }
    let (schema, path) =
        schema.get("items").map_or((schema, path.to_owned()), |items| (items, format!("{path}[]")));
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, child) in children.and_then(Value::as_object).into_iter().flatten() {
        fields(&format!("{path}.{name}"), child, required.iter().any(|word| word == name), found);
    }
}

#[test]
fn each_default_is_documented_as_it_is() {
    let crd = serde_json::to_value(ManagedOSImage::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let mut expected = BTreeMap::new();
    for group in GROUPS {
        fields(group, &spec[group], false, &mut expected);
    }
    assert!(expected.len() > 50, "{expected:?}");

    let page = include_str!("../../docs/rollout.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Defaults\n")).unwrap();
    let rows = section.lines().filter_map(|line| {
        let (path, default) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((path.to_owned(), default.strip_suffix(" |")?.to_owned()))
    });
    let mut documented: BTreeMap<String, String> = rows.collect();
    for (path, default) in expected {
        let row = documented.remove(&path).unwrap_or_default();
        let is_so = row == default || default == "none" && row.starts_with("none: ");
        assert!(is_so, "docs/rollout.md says of {path} {row:?}, and it is {default}");
    }
    assert!(documented.is_empty(), "docs/rollout.md has what is not in the API: {documented:?}");
}
