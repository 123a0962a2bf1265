//! A shell of the machine's superuser on its second serial line.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

/// Begins the line behind which is what a command says: before it are the shell's prompts.
const BEGIN: &str = "@@begun";
/// Begins the line that says how a command ended.
const END: &str = "@@ended";
/// A system that is up starts the shell within moments, however slow its host is.
const START: Duration = Duration::from_mins(2);
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// The line, open.
pub(super) struct Shell {
    stream: UnixStream,
    number: u32,
}

/// What a command said, both ways, and how it ended.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub text: String,
    pub status: i32,
}

impl Shell {
    /// Waits until the machine's shell answers.
    pub(super) async fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.context("connect to the machine's serial line")?;
        let mut shell = Self { stream, number: 0 };
        let begun = std::time::Instant::now();
        while begun.elapsed() < START {
            if let Ok(Ok(_)) = timeout(ASK_AGAIN, shell.run("true")).await {
                return Ok(shell);
            }
            sleep(ASK_AGAIN / 3).await;
        }
        bail!("the machine's shell does not answer on its serial line")
    }

    /// Runs a command and waits for its end.
    pub(super) async fn run(&mut self, command: &str) -> Result<Said> {
        self.number += 1;
        let (begin, end) = (format!("{BEGIN} {}.", self.number), format!("{END} {} ", self.number));
        let marked =
            format!("printf '\\n{begin}\\n'; ( {command}\n) < /dev/null 2>&1; printf '\\n{end}%s.\\n' $?");
        self.begin(&marked).await?;
        let mut seen = Vec::new();
        let mut part = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&seen);
            if let Some((text, rest)) = text.split_once(&end)
                && let Some((status, _)) = rest.split_once('.')
            {
                // What a shell before this one was asked may be answered first.
                let text = text.rsplit_once(&begin).map_or(text, |(_, text)| text);
                let status = status.parse().with_context(|| format!("{status:?} is no exit status"))?;
                return Ok(Said { text: text.trim().to_owned(), status });
            }
            let length = self.stream.read(&mut part).await.context("read from the machine's serial line")?;
            if length == 0 {
                bail!("the machine's power went while `{command}` ran");
            }
            seen.extend_from_slice(&part[..length]);
        }
    }

    /// Begins a command without waiting for its end.
    pub(super) async fn begin(&mut self, command: &str) -> Result<()> {
        let line = format!("{command}\n");
        self.stream.write_all(line.as_bytes()).await.context("write to the machine's serial line")
    }
}
