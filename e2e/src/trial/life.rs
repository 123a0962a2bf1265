//! The life of one machine from an empty disk on: it is installed, updated and taken back, begins anew, is broken in one
//! place after the other, and is brought back with what the documentation says. A shell on a second serial line does what
//! a person would do at its console.

mod damage;
mod machine;
mod shell;
mod stories;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{base::Host, case::Loader};
use crate::{os_image, process::Scratch, progress};

use machine::Lived;
use stories::{STORIES, Story};

/// Options of `evenkeel-e2e life`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The stories to tell, by name; default: all.
    pub stories: Vec<String>,
    /// Say what stories there are, and tell none.
    #[arg(long)]
    pub list: bool,
    /// Boot by GRUB.
    #[arg(long)]
    pub grub: bool,
    /// Boot by GRUB, on machines with BIOS.
    #[arg(long, conflicts_with = "grub")]
    pub bios: bool,
}

/// Tells the stories. An error, which names them all, if a machine came to anything but what its story says.
pub async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for story in STORIES {
            println!("{:<18} {}", story.name, story.about);
        }
        return Ok(());
    }
    let chosen = choose(&arguments.stories)?;
    let loader = match (arguments.grub, arguments.bios) {
        (_, true) => Loader::GrubOnBios,
        (true, false) => Loader::Grub,
        (false, false) => Loader::SystemdBoot,
    };
    let scratch = Scratch::new("life")?;
    let host = Host::prepare_with(scratch.path(), os_image::publish_lives).await?;
    let mut wrong = Vec::new();
    for story in chosen {
        match tell(&host, loader, story).await {
            Ok(()) => progress::step(&format!("{}: as it should", story.name)),
            Err(error) => {
                progress::step(&format!("{} FAILED: {error:#}", story.name));
                wrong.push(story.name);
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("these stories came to another end: {}", wrong.join(", "))
}

async fn tell(host: &Host, loader: Loader, story: &Story) -> Result<()> {
    progress::step(&format!("{}: {}", story.name, story.about));
    let mut machine = Lived::new(host, loader, story.name)?;
    let told = story.tell(&mut machine).await;
    machine.end(told.is_ok())?;
    told
}

fn choose(names: &[String]) -> Result<Vec<&'static Story>> {
    if names.is_empty() {
        return Ok(STORIES.iter().collect());
    }
    let story = |name: &String| {
        let found = STORIES.iter().find(|story| story.name == name);
        found.with_context(|| format!("there is no story {name}: `--list` shows them"))
    };
    names.iter().map(story).collect()
}
