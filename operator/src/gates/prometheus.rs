//! Instant queries to Prometheus, or to what speaks its HTTP API (`/api/v1/query`).

use std::time::Duration;

use evenkeel_crds::health_gate::{PrometheusAnswer, PrometheusGate};
use reqwest::{Certificate, Client, redirect};
use serde::Deserialize;
use serde_json::Value;

use super::Verdict;
use crate::api::with_causes;

/// Prometheus gives up by itself after two minutes; nobody waits that long here.
const TIME: Duration = Duration::from_secs(10);
/// An answer names series; a thousand of them have about 200 kB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks once.
pub async fn judge(gate: &PrometheusGate, node: &str) -> Verdict {
    match ask(gate, node).await {
        Ok(answer) => verdict(gate.expect, &answer),
        Err(why) => Verdict::Unknown(format!("{}: {why}", gate.url)),
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(rename = "resultType", default)]
    kind: String,
    #[serde(default)]
    result: Vec<Value>,
}

async fn ask(gate: &PrometheusGate, node: &str) -> Result<Answer, String> {
    let told = |error: reqwest::Error| with_causes(&error.without_url());
    let client = client(gate).map_err(told)?;
    let url = format!("{}/api/v1/query", gate.url.trim_end_matches('/'));
    let query = gate.query.replace("$(NODE)", node);
    let mut response = client.get(url).query(&[("query", query.as_str())]).send().await.map_err(told)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!(
                "the answer is longer than {ANSWER_BYTES_MAX} bytes: aggregate in the query"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    // Prometheus says in the same form what is wrong with a query.
    match serde_json::from_slice::<Answer>(&body) {
        Ok(answer) if answer.status == "success" => Ok(answer),
        Ok(answer) => Err(format!("{status}: {}", answer.error)),
        Err(_) => Err(format!("{status}, and the answer is not that of Prometheus")),
    }
}

fn client(gate: &PrometheusGate) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        .timeout(TIME)
        .redirect(redirect::Policy::none());
    if gate.url.starts_with("http:") {
        // Nobody's certificate is asked for, and none has to be there.
        return builder.tls_certs_only([]).build();
    }
    let extra = gate.ca_bundle.iter().map(|pem| Certificate::from_pem_bundle(pem.as_bytes()));
    let extra: Vec<Certificate> = extra.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    builder.tls_certs_merge(extra).build()
}

fn verdict(expect: PrometheusAnswer, answer: &Answer) -> Verdict {
    let Data { kind, result } = &answer.data;
    let found = match kind.as_str() {
        "vector" => result.len(),
        "scalar" => {
            let number = result.get(1).and_then(Value::as_str).and_then(|text| text.parse::<f64>().ok());
            usize::from(number.is_some_and(|number| number != 0.0))
        }
        other => return Verdict::Unknown(format!("the query gives a {other}, not a vector or a number")),
    };
    match (expect, found) {
        (PrometheusAnswer::NotEmpty, 0) => Verdict::NotMet("the query finds nothing".into()),
        (PrometheusAnswer::Empty, 1..) if kind == "vector" => {
            let first = result.first().map(|series| series["metric"].to_string()).unwrap_or_default();
            Verdict::NotMet(format!("the query finds {found} series, such as {}", short(first)))
        }
        (PrometheusAnswer::Empty, 1..) => Verdict::NotMet("the query gives a number that is not 0".into()),
        _ => Verdict::Met,
    }
}

fn short(mut text: String) -> String {
    if text.len() > 200 {
        text.truncate(text.floor_char_boundary(200));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use PrometheusAnswer::{Empty, NotEmpty};
    use serde_json::json;

    fn answered(expect: PrometheusAnswer, data: &Value) -> Verdict {
        let answer = json!({ "status": "success", "data": data });
        verdict(expect, &serde_json::from_value(answer).unwrap())
    }

    #[test]
    fn series_and_numbers_are_met_or_not() {
        let series = json!({ "metric": { "alertname": "Degraded" }, "value": [1, "0"] });
        let none = json!({ "resultType": "vector", "result": [] });
        let one = json!({ "resultType": "vector", "result": [series] });
        let number = |text: &str| json!({ "resultType": "scalar", "result": [1.5, text] });
        assert_eq!(answered(NotEmpty, &one), Verdict::Met, "a series counts whatever its value");
        assert_eq!(answered(NotEmpty, &none), Verdict::NotMet("the query finds nothing".into()));
        assert_eq!(answered(Empty, &none), Verdict::Met);
        let Verdict::NotMet(why) = answered(Empty, &one) else { panic!() };
        assert!(why.contains("1 series") && why.contains("Degraded"), "{why}");
        assert_eq!(answered(NotEmpty, &number("2")), Verdict::Met);
        assert!(matches!(answered(NotEmpty, &number("0")), Verdict::NotMet(_)));
        assert!(matches!(answered(NotEmpty, &number("NaN")), Verdict::Met));
        assert!(matches!(answered(Empty, &number("1")), Verdict::NotMet(_)));
        let range = json!({ "resultType": "matrix", "result": [] });
        assert!(matches!(answered(Empty, &range), Verdict::Unknown(_)));
    }
}
