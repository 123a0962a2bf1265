//! One machine, no cluster, and slots that are good, bad or damaged: each case is a row of a table that says what the
//! machine must come to without anybody's help.

mod base;
mod boots;
mod case;
mod cases;
mod cause;
pub mod life;
pub mod power;
mod run;
mod slot;
mod spoil;
mod state;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{process::Scratch, progress};

use base::{Base, Host};
use case::Trial;

/// Options of `evenkeel-e2e trial`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The cases to run, by name; default: those that are run with every test.
    #[arg(conflicts_with = "all")]
    pub cases: Vec<String>,
    /// Run every case.
    #[arg(long)]
    pub all: bool,
    /// Say what cases there are, and run none.
    #[arg(long)]
    pub list: bool,
}

/// Runs the cases. An error, which names them all, if a machine came to anything but what its case says.
pub async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for trial in cases::all() {
            println!("{:<25} {}", trial.name(), trial.case.about);
        }
        return Ok(());
    }
    let chosen = choose(arguments)?;
    let scratch = Scratch::new("trial")?;
    let loaders: Vec<_> = chosen.iter().map(|trial| trial.loader).collect();
    let host = Host::prepare(scratch.path(), &loaders).await?;
    let mut bases = BTreeMap::new();
    let mut wrong = Vec::new();
    for trial in &chosen {
        let loader = trial.loader;
        if !bases.contains_key(loader.name()) {
            bases.insert(loader.name(), Base::prepare(&host, loader).await?);
        }
        let base = bases.get(loader.name()).context("the base that was just made")?;
        let name = trial.name();
        match run::run(&host, base, *trial).await {
            Ok(said) => progress::step(&format!("{name}: {said}")),
            Err(error) => {
                progress::step(&format!("{name} FAILED: {error:#}"));
                wrong.push(name);
            }
        }
    }
    if wrong.is_empty() {
        progress::step(&format!("all {} cases came to what they should", chosen.len()));
        return Ok(());
    }
    bail!("{} of {} cases came to something else: {}", wrong.len(), chosen.len(), wrong.join(", "))
}

fn choose(arguments: &Arguments) -> Result<Vec<Trial>> {
    let all = cases::all();
    if arguments.all {
        return Ok(all.collect());
    }
    if arguments.cases.is_empty() {
        return Ok(all.filter(|trial| trial.quick()).collect());
    }
    let named = |name: &String| {
        let found = cases::all().find(|trial| trial.name() == *name);
        found.with_context(|| format!("there is no case {name}: `--list` shows them"))
    };
    arguments.cases.iter().map(named).collect()
}
