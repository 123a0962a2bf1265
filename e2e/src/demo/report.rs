//! What the demo found: a table for people and a document for programs.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use evenkeel_crds::node_plan::NodePlanStatus;
use serde::Serialize;

/// The whole document, `report.json`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was done, in order.
    pub scenarios: Vec<Scenario>,
    /// The lowest number of available replicas of the workload that was seen.
    pub lowest_available_replicas: Option<i32>,
    /// Everything that was expected and did not happen; empty when all is well.
    pub unmet: Vec<String>,
}

/// One image that was applied.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// From `kubectl apply` to the end, in seconds.
    pub seconds: f64,
    /// The image object's summary at the end.
    pub summary: String,
    /// Each node.
    pub nodes: Vec<NodeReport>,
}

/// One node in one scenario.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// The kernel's boot ID before.
    pub boot_id_before: String,
    /// The kernel's boot ID at the end.
    pub boot_id_after: String,
    /// Digest of the image that ran before.
    pub digest_before: String,
    /// Digest of the image that runs at the end.
    pub digest_after: String,
    /// The plan's phase at the end.
    pub phase: String,
    /// Why the old slot runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
    /// Seconds from the first request to the verified slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_staging: Option<f64>,
    /// Seconds from cordon to Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_out_of_service: Option<f64>,
    /// Bytes that came over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_downloaded: Option<i64>,
    /// Bytes that were written to the slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_written: Option<i64>,
}

impl NodeReport {
    /// Takes over what the agent said at the end of the scenario.
    pub fn take(&mut self, status: &NodePlanStatus) {
        self.phase = format!("{:?}", status.phase);
        self.digest_after = status.booted.as_ref().map(|booted| booted.digest.clone()).unwrap_or_default();
        self.rolled_back =
            status.rolled_back.as_ref().map(|back| format!("{:?}: {}", back.cause, back.message));
        if let Some(staging) = &status.staging {
            #[allow(clippy::cast_precision_loss)] // Seconds for a person.
            let seconds = staging.milliseconds as f64 / 1000.0;
            self.seconds_staging = Some(seconds);
            self.bytes_downloaded = Some(staging.bytes_downloaded);
            self.bytes_written = Some(staging.bytes_written);
        }
    }
}

impl Report {
    /// Writes the document.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self).context("render the report")?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ["scenario", "node", "phase", "boot", "digest", "staging", "out", "down", "written"]
                .map(str::to_owned),
        ];
        for scenario in &self.scenarios {
            rows.extend(scenario.nodes.iter().map(|node| row(scenario, node)));
        }
        let mut table = align(&rows);
        for scenario in &self.scenarios {
            let _ = writeln!(table, "\n{} ({:.0} s): {}", scenario.name, scenario.seconds, scenario.summary);
            for node in &scenario.nodes {
                if let Some(cause) = &node.rolled_back {
                    let _ = writeln!(table, "  {} went back. {cause}", node.name);
                }
            }
        }
        let lowest = self.lowest_available_replicas.map_or("unknown".to_owned(), |lowest| lowest.to_string());
        let _ = writeln!(
            table,
            "\nlowest number of available workload replicas: {lowest} (of 2, at least 1 wanted)"
        );
        table
    }
}

fn row(scenario: &Scenario, node: &NodeReport) -> [String; 9] {
    let short = |text: &str| text.trim_start_matches("sha256:").chars().take(8).collect::<String>();
    let change = |before: &str, after: &str| {
        if before == after { short(before) } else { format!("{} → {}", short(before), short(after)) }
    };
    let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0} s"));
    let megabytes =
        |value: Option<i64>| value.map_or("-".to_owned(), |value| format!("{} MB", value / 1_000_000));
    [
        scenario.name.clone(),
        node.name.clone(),
        node.phase.clone(),
        change(&node.boot_id_before, &node.boot_id_after),
        change(&node.digest_before, &node.digest_after),
        seconds(node.seconds_staging),
        seconds(node.seconds_out_of_service),
        megabytes(node.bytes_downloaded),
        megabytes(node.bytes_written),
    ]
}

fn align<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut table = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    table
}
