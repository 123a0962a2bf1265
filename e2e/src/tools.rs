//! The programs of a cluster, and those that judge, built from their Go modules and kept in the cache.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::{cache, progress};

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Tool {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    Kubectl,
    Helm,
    Containerd,
    ContainerdShim,
    Ctr,
    Cosign,
    Chunked,
    Promtool,
    Kstatus,
}

/// A folder below `e2e/tools` with a `go.mod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Module {
    Kubernetes,
    Helm,
    Containerd,
    Cosign,
    Chunked,
    Promtool,
    Kstatus,
}

const MODULES: [Module; 7] = [
    Module::Kubernetes,
    Module::Helm,
    Module::Containerd,
    Module::Cosign,
    Module::Chunked,
    Module::Promtool,
    Module::Kstatus,
];

impl Tool {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Containerd => "containerd",
            Self::ContainerdShim => "containerd-shim-runc-v2",
            Self::Ctr => "ctr",
            Self::Cosign => "cosign",
            Self::Chunked => "chunked",
            Self::Promtool => "promtool",
            Self::Kstatus => "kstatus",
        }
    }

    fn module(self) -> Module {
        match self {
            Self::Helm => Module::Helm,
            Self::Containerd | Self::ContainerdShim | Self::Ctr => Module::Containerd,
            Self::Cosign => Module::Cosign,
            Self::Chunked => Module::Chunked,
            Self::Promtool => Module::Promtool,
            Self::Kstatus => Module::Kstatus,
            _ => Module::Kubernetes,
        }
    }

    fn package(self) -> String {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3".to_owned(),
            Self::Helm => "helm.sh/helm/v3/cmd/helm".to_owned(),
            Self::Cosign => "github.com/sigstore/cosign/v3/cmd/cosign".to_owned(),
            Self::Promtool => "github.com/prometheus/prometheus/cmd/promtool".to_owned(),
            Self::Chunked | Self::Kstatus => format!("evenkeel.dev/e2e/tools/{}", self.name()),
            Self::Containerd | Self::ContainerdShim | Self::Ctr => {
                format!("github.com/containerd/containerd/v2/cmd/{}", self.name())
            }
            _ => format!("k8s.io/kubernetes/cmd/{}", self.name()),
        }
    }

    /// The name that `go build` gives the program: the last part of the package's path that is no version.
    fn built_as(self) -> &'static str {
        if self == Self::Etcd { "server" } else { self.name() }
    }
}

/// Programs that were asked for.
#[derive(Clone, Debug)]
pub struct Tools {
    folders: Vec<(Module, PathBuf)>,
}

impl Tools {
    /// Where a program is; one that [`ensure`] was not asked for may not be there.
    pub fn path(&self, tool: Tool) -> PathBuf {
        let folder = self.folders.iter().find(|(module, _)| *module == tool.module());
        folder.map_or_else(|| PathBuf::from(tool.name()), |(_, folder)| folder.join(tool.name()))
    }
}

/// Builds what is not in the cache yet: one `go build` for each `go.mod`.
pub async fn ensure(tools: &[Tool]) -> Result<Tools> {
    let mut folders = Vec::new();
    for module in MODULES {
        let wanted: BTreeSet<Tool> = tools.iter().copied().filter(|tool| tool.module() == module).collect();
        if !wanted.is_empty() {
            folders.push((module, module.ensure(&wanted).await?));
        }
    }
    Ok(Tools { folders })
}

impl Module {
    fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Helm => "helm",
            Self::Containerd => "containerd",
            Self::Cosign => "cosign",
            Self::Chunked => "chunked",
            Self::Promtool => "promtool",
            Self::Kstatus => "kstatus",
        }
    }

    fn source(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.name())
    }

    async fn ensure(self, wanted: &BTreeSet<Tool>) -> Result<PathBuf> {
        let source = self.source();
        let read = |file: &str| {
            let path = source.join(file);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (module, sums) = (read("go.mod")?, read("go.sum")?);
        let flags = self.flags(&module)?;
        let go = go_version().await?;
        // Where the program is our own.
        let own = fs::read_to_string(source.join("main.go")).unwrap_or_default();
        let parts = [module, sums, own, flags.join("\0"), go];
        let key = format!("{}-{}", self.name(), cache::key(parts.iter().map(String::as_bytes)));
        let tools = cache::root()?.join("tools");
        let folder = tools.join(&key);
        let missing = || wanted.iter().copied().filter(|tool| !folder.join(tool.name()).exists());
        if missing().next().is_none() {
            return Ok(folder);
        }
        let _lock = cache::lock(&tools, &key).await?;
        let missing: Vec<Tool> = missing().collect();
        if !missing.is_empty() {
            build(&source, &flags, &missing, &folder).await?;
        }
        Ok(folder)
    }

    fn flags(self, module: &str) -> Result<Vec<String>> {
        let mut linker = "-s -w".to_owned();
        if self == Self::Kubernetes {
            // Without the stamp the server says that it is v0.0.0.
            let version = required(module, "k8s.io/kubernetes")?;
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
            for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                linker = format!("{linker} -X k8s.io/component-base/version.{name}={value}");
            }
        }
        let mut flags = vec!["-trimpath".to_owned(), format!("-ldflags={linker}")];
        if self == Self::Containerd {
            flags.push("-tags=no_btrfs".to_owned());
        }
        if self == Self::Promtool {
            // The clients of all clouds, which find what to scrape, are most of what there is to compile.
            flags.push("-tags=remove_all_sd".to_owned());
        }
        Ok(flags)
    }
}

/// The version of a module that a `go.mod` requires.
fn required<'a>(module: &'a str, name: &str) -> Result<&'a str> {
    module
        .lines()
        .find_map(|line| {
            let mut words = line.trim().trim_start_matches("require ").split_whitespace();
            (words.next() == Some(name)).then(|| words.next()).flatten()
        })
        .with_context(|| format!("go.mod does not require {name}"))
}

async fn go_version() -> Result<String> {
    let output = Command::new("go").args(["env", "GOVERSION"]).output().await;
    let output = output.context("run go: Go must be installed and in PATH")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn build(source: &Path, flags: &[String], tools: &[Tool], folder: &Path) -> Result<()> {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    let unfinished = folder.join("unfinished");
    cache::fresh(&unfinished)?;
    let log = unfinished.join("build.log");
    let output = fs::File::create(&log).context("create the build's log")?;
    let mut command = Command::new("go");
    command
        .args(["build", "-v"])
        .args(flags)
        .arg("-o")
        .arg(&unfinished)
        .args(tools.iter().map(|tool| tool.package()))
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .kill_on_drop(true);
    let packages = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        format!(
            "{} packages, now {}",
            text.lines().count(),
            text.lines().last().unwrap_or("resolving modules")
        )
    };
    let status =
        progress::long_with(&format!("build {}", names.join(", ")), packages, command.status()).await;
    if !status.context("run go")?.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        let end = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!("building {} in {} failed:\n{end}", names.join(", "), source.display());
    }
    for tool in tools {
        let built = unfinished.join(tool.built_as());
        fs::rename(&built, folder.join(tool.name()))
            .with_context(|| format!("go build made no {}", built.display()))?;
    }
    fs::remove_dir_all(&unfinished).context("remove the build's folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module() {
        let module = fs::read_to_string(Module::Kubernetes.source().join("go.mod")).unwrap();
        let version = required(&module, "k8s.io/kubernetes").unwrap();
        let flags = Module::Kubernetes.flags(&module).unwrap().join(" ");
        assert!(version.starts_with("v1."), "{version}");
        assert!(flags.contains(&format!("gitVersion={version} ")), "{flags}");
        assert!(required(&module, "k8s.io/no-such-module").is_err());
    }

    #[test]
    fn every_program_is_a_tool_of_its_module() {
        use Tool::{
            Chunked, Containerd, ContainerdShim, Cosign, Etcd, Helm, Kstatus, KubeApiserver,
            KubeControllerManager, KubeScheduler, Kubectl, Kubelet, Promtool,
        };
        for tool in [
            Etcd,
            KubeApiserver,
            KubeControllerManager,
            KubeScheduler,
            Kubelet,
            Kubectl,
            Helm,
            Containerd,
            ContainerdShim,
            Cosign,
            Chunked,
            Promtool,
            Kstatus,
        ] {
            let module = fs::read_to_string(tool.module().source().join("go.mod")).unwrap();
            assert!(module.contains(&tool.package()), "{} is not in its go.mod", tool.package());
        }
    }
}
