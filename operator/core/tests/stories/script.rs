//! The words of a story's script.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::{
    agent::Fate,
    cluster::{Cluster, Place},
};

/// Plays one line of the script: its first word says what happens.
pub fn play(cluster: &mut Cluster, line: &str) -> Result<(), String> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    match (verb, words.as_slice()) {
        // `nodes w1..w6 zone=a control-plane operator weight=5 label=canary`
        ("nodes", [names, traits @ ..]) => {
            let place = place(traits)?;
            names_of(names)?.into_iter().for_each(|name| cluster.join(&name, &place));
            Ok(())
        }
        // `spec {…}`: fields of the image object's spec, merged into those that are there
        ("spec", _) => cluster.specify(&serde_json::from_str(rest).map_err(|error| error.to_string())?),
        ("image", [version]) => cluster.ask_for(version),
        ("run", [count, unit]) => {
            let until = cluster.now + duration(count, unit)?;
            cluster.run(until);
            Ok(())
        }
        ("breaks", [version, "on", name]) => cluster.fate(name, Fate::ImageFails, version),
        ("fills", [name]) => cluster.fate(name, Fate::StagingFails, "1.0"),
        ("dies", [name]) => cluster.fate(name, Fate::NeverReturns, "1.0"),
        ("heals", [name]) => cluster.fate(name, Fate::Fine, "1.0"),
        ("holds", [name, by @ ..]) => cluster.hold(name, Some(by.join(" "))),
        ("frees", [name]) => cluster.hold(name, None),
        ("gate", [gate, "met"]) => cluster.gate(gate, None),
        ("gate", [gate, why @ ..]) => cluster.gate(gate, Some(why.join(" "))),
        ("unready", [name]) => cluster.node(name).map(|node| node.ready = false),
        ("ready", [name]) => cluster.node(name).map(|node| node.ready = true),
        ("cordons", [name]) => cluster.cordon(name, true),
        ("uncordons", [name]) => cluster.cordon(name, false),
        ("leaves", [name]) => cluster.node(name).map(|node| node.gone = true),
        ("deselects", [name]) => cluster.node(name).map(|node| node.selected = false),
        ("forgets", ["plan", name]) => cluster.node(name).map(|node| node.plan = None),
        ("pauses", [owner, reason @ ..]) => cluster.pause(owner, &reason.join(" ")),
        ("resumes", [owner]) => cluster.resume(owner),
        ("approves", [by]) => cluster.approve(by),
        ("runs-now", [by, count, unit]) => cluster.run_now(by, duration(count, unit)?),
        ("allows", [version]) => cluster.allow(version),
        ("deletes", []) => {
            cluster.policy.deleting = true;
            Ok(())
        }
        ("preview", []) => cluster.preview(),
        _ => Err("the script has no such word".to_owned()),
    }
}

/// `w1..w6` or `w1,w2` or `w1`.
fn names_of(names: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = names.split_once("..") else {
        return Ok(names.split(',').map(str::to_owned).collect());
    };
    let stem = first.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let number = |name: &str| {
        let digits = name.strip_prefix(stem).and_then(|digits| digits.parse::<u32>().ok());
        digits.ok_or_else(|| format!("{name} is not {stem} and a number"))
    };
    Ok((number(first)?..=number(last)?).map(|number| format!("{stem}{number}")).collect())
}

fn place(traits: &[&str]) -> Result<Place, String> {
    let mut place = Place::default();
    for one in traits {
        match one.split_once('=').unwrap_or((one, "")) {
            ("zone", zone) => zone.clone_into(&mut place.domain),
            ("weight", weight) => {
                place.weight = weight.parse().map_err(|_| format!("{weight} is no weight"))?;
            }
            ("label", label) => place.labels = BTreeMap::from([(label.to_owned(), "yes".to_owned())]),
            ("control-plane", _) => place.control_plane = true,
            ("operator", _) => place.runs_operator = true,
            _ => return Err(format!("{one} is nothing that a node can have")),
        }
    }
    Ok(place)
}

fn duration(count: &str, unit: &str) -> Result<SignedDuration, String> {
    let count: i64 = count.parse().map_err(|_| format!("{count} is no number"))?;
    match unit {
        "s" => Ok(SignedDuration::from_secs(count)),
        "min" => Ok(SignedDuration::from_mins(count)),
        "h" => Ok(SignedDuration::from_hours(count)),
        _ => Err(format!("{unit} is neither s, min nor h")),
    }
}
