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
use case::Case;

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
        for case in cases::all() {
            println!("{:<18} {}", case.name, case.about);
        }
        return Ok(());
    }
    let chosen = choose(arguments)?;
    let scratch = Scratch::new("trial")?;
    let host = Host::prepare(scratch.path()).await?;
    let mut bases = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &chosen {
        if !bases.contains_key(case.loader.name()) {
            bases.insert(case.loader.name(), Base::prepare(&host, case.loader).await?);
        }
        let base = bases.get(case.loader.name()).context("the base that was just made")?;
        match run::run(&host, base, case).await {
            Ok(said) => progress::step(&format!("{}: {said}", case.name)),
            Err(error) => {
                progress::step(&format!("{} FAILED: {error:#}", case.name));
                wrong.push(case.name);
            }
        }
    }
    if wrong.is_empty() {
        progress::step(&format!("all {} cases came to what they should", chosen.len()));
        return Ok(());
    }
    bail!("{} of {} cases came to something else: {}", wrong.len(), chosen.len(), wrong.join(", "))
}

fn choose(arguments: &Arguments) -> Result<Vec<&'static Case>> {
    let all = cases::all();
    if arguments.all {
        return Ok(all.collect());
    }
    if arguments.cases.is_empty() {
        return Ok(all.filter(|case| case.quick).collect());
    }
    let named = |name: &String| {
        let found = cases::all().find(|case| case.name == name);
        found.with_context(|| format!("there is no case {name}: `--list` shows them"))
    };
    arguments.cases.iter().map(named).collect()
}
