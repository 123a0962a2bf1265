//! What watches a rollout: kstatus, Prometheus, the alerts and the dashboard of the chart.

mod chart;
mod rollout;

use std::{collections::BTreeSet, fs};

use anyhow::Result;
use evenkeel_tests::root;

/// Names that begin as ours do in a text.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c)).filter(|word| word.starts_with("evenkeel_"));
    words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

/// The names in the table of the documentation, which are those that the operator has.
fn documented() -> Result<BTreeSet<String>> {
    let page = fs::read_to_string(root().join("docs/metrics.md"))?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `evenkeel_")?.split_once('`'));
    Ok(rows.map(|(name, _)| format!("evenkeel_{name}")).collect())
}
