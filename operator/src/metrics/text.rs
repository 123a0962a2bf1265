//! Prometheus' own text format (0.0.4), for those who do not ask for `OpenMetrics`: the same lines, but a counter's name
//! is that of its samples, and there are neither units nor an end.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

/// Makes it out of `OpenMetrics` text.
pub(super) fn classic(open_metrics: &str) -> String {
    let types: Vec<(&str, &str)> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let about = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        let Some((keyword, (name, rest))) =
            about.and_then(|(keyword, rest)| Some((keyword, rest.split_once(' ')?)))
        else {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{line}");
            continue;
        };
        let kind = types.iter().find(|(of, _)| *of == name).map_or("", |(_, kind)| kind);
        let (suffix, rest) = match (kind, keyword) {
            ("counter", _) => ("_total", rest),
            ("info", "TYPE") => ("_info", "gauge"),
            ("info", _) => ("_info", rest),
            _ => ("", rest),
        };
        let _ = writeln!(text, "# {keyword} {name}{suffix} {rest}");
    }
    text
}
