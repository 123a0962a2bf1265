//! A machine that updates itself, goes back, begins anew, or installs another disk, and loses its power again and again: what
//! it wrote and did not flush is lost, kept or torn. In the end it runs what it should, kept, and its slots hold what was
//! written into them.

mod dice;
mod disk;
mod install;
mod story;
mod tales;

use anyhow::{Result, bail, ensure};
use clap::Args;

use super::{
    base::{Base, Host},
    case::Loader,
};
use crate::{process::Scratch, progress};

use dice::Dice;
use story::Story;
pub use tales::Name;
use tales::Tale;

/// Options of `evenkeel-e2e power`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Cuts in all, each of which comes while something is done.
    #[arg(long, default_value_t = 100)]
    pub cuts: usize,
    /// Cuts in each of these at most, after which it is left alone.
    #[arg(long, default_value_t = 4)]
    pub cuts_in_each: usize,
    /// Where chance begins. A story's own seed is told, and repeats its cuts: after the same steps and as many writes, and
    /// with the same of them lost.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What the machine does; default: what each seed chooses, which is anything but an installation.
    #[arg(long)]
    pub tale: Option<Name>,
    /// Boot by GRUB.
    #[arg(long)]
    pub grub: bool,
}

/// Runs stories until there were enough cuts. An error if a machine did not come to its end.
pub async fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.cuts_in_each > 0, "each update has to have a cut");
    let scratch = Scratch::new("power")?;
    let loader = if arguments.grub { Loader::Grub } else { Loader::SystemdBoot };
    let host = Host::prepare(scratch.path(), &[loader]).await?;
    let base = Base::prepare(&host, loader).await?;
    let (mut done, mut failed) = (0, Vec::new());
    for seed in arguments.seed.. {
        if done >= arguments.cuts {
            break;
        }
        let cuts = arguments.cuts_in_each.min(arguments.cuts - done);
        let mut dice = Dice::new(seed);
        let story = Story::new(&host, &base, loader, Tale::choose(arguments.tale, &mut dice), seed)?;
        match story.tell(&mut dice, cuts).await {
            Ok(hit) => {
                done += hit;
                progress::step(&format!("seed {seed}: came to its end after {hit} cuts; {done} by now"));
            }
            Err(error) => {
                progress::step(&format!("seed {seed} FAILED: {error:#}"));
                failed.push(seed);
                // It may have failed before the first one, and would do so for ever.
                done += 1;
            }
        }
    }
    if failed.is_empty() {
        progress::step(&format!("{done} cuts, and each time the machine came to its end"));
        return Ok(());
    }
    bail!("the machines of the seeds {failed:?} had another end")
}
