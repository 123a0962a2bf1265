//! Does the steps of stages. A step that fails does not keep the next from being done.

use std::{
    fs,
    path::{Path, PathBuf},
};

use evenkeel_node_agent_core::cloud_config::{CloudConfig, Stage, Step, System};

use super::{CloudConfigError, files, once::Mark, system, users};

/// The machine whose state is made what the steps say.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its root; another one than `/` is that of a test, whose kernel and init are not touched.
    pub root: PathBuf,
    /// Digest of the image that runs.
    pub digest: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Files that were written.
    pub written: Vec<PathBuf>,
    /// Steps that failed, with the first thing that did.
    pub failed: Vec<(String, CloudConfigError)>,
}

impl Machine {
    /// The machine that this program runs on.
    pub fn this(digest: String) -> Self {
        Self { root: "/".into(), digest }
    }

    pub(super) fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path of the machine.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn system(&self) -> System {
        let text = |path: &str| fs::read_to_string(self.at(path)).unwrap_or_default();
        let os_release = text("/etc/os-release");
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let node = text("/etc/hostname").trim().to_owned();
        System { id: field("ID"), name: field("NAME"), version: field("VERSION_ID"), node }
    }

    /// Does the steps of a stage that are due.
    pub fn apply(&self, config: &CloudConfig, stage: Stage) -> Applied {
        let mut applied = Applied::default();
        let mark = Mark::of_stage(self, stage);
        if mark.as_ref().is_none_or(Mark::is_due) {
            for (index, step) in config.steps(stage).iter().enumerate() {
                // What an earlier step changed counts, such as the host name.
                let due = step.is_for(&self.system()) && system::holds(self, step.only_if.as_deref());
                if due && let Err(error) = self.step(step, &mut applied.written) {
                    let number = format!("step {} of stage {stage:?}", index + 1);
                    let name = Some(&step.name).filter(|name| !name.is_empty()).unwrap_or(&number);
                    applied.failed.push((name.clone(), error));
                }
            }
        }
        if let Some(mark) = mark.filter(|_| applied.failed.is_empty())
            && let Err(error) = mark.set()
        {
            applied.failed.push((format!("the end of stage {stage:?}"), error));
        }
        applied
    }

    fn step(&self, step: &Step, written: &mut Vec<PathBuf>) -> Result<(), CloudConfigError> {
        let mark = step.once.then(|| Mark::of_step(self, step));
        if mark.as_ref().is_some_and(|mark| !mark.is_due()) {
            return Ok(());
        }
        for directory in &step.directories {
            files::directory(self, directory)?;
        }
        for file in &step.files {
            files::file(self, file, written)?;
        }
        for words in &step.commands {
            system::shell(self, words)?;
        }
        if let Some(name) = &step.hostname {
            system::hostname(self, name, written)?;
        }
        system::sysctl(self, &step.sysctl)?;
        for (name, account) in &step.users {
            users::account(self, name, account)?;
            users::keys(self, name, &account.ssh_authorized_keys, written)?;
        }
        for (name, keys) in &step.authorized_keys {
            users::keys(self, name, keys, written)?;
        }
        system::modules(self, &step.modules)?;
        system::timesyncd(self, &step.timesyncd, written)?;
        system::systemctl(self, &step.systemctl)?;
        system::environment(self, step, written)?;
        mark.map_or(Ok(()), |mark| mark.set())
    }
}
