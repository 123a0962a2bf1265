//! The whole of Evenkeel on real input: machines that boot, change their operating system one after the other, and a
//! bad image that puts itself right.

mod autopsy;
mod charts;
mod cluster;
mod manifests;
mod report;
mod reset;
mod rollout;
mod watch;

use std::path::PathBuf;

use anyhow::{Error, Result, anyhow, bail};
use clap::Args;

use crate::{machine::Machine, process::Scratch, progress};

use cluster::Cluster;
use report::Report;
use rollout::Expected;
use watch::Watch;

/// Options of the demo.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Where the report goes.
    #[arg(long, default_value = "target/demo/report.json")]
    pub report: PathBuf,
    /// Also try a version that panics, which takes some minutes more: the boot loader uses up its tries.
    #[arg(long)]
    pub panic: bool,
    /// Let a machine begin anew in the end, which takes some minutes more.
    #[arg(long)]
    pub reset: bool,
    /// Keep everything running at the end, until Ctrl-C.
    #[arg(long, env = "KEEP", value_parser = clap::builder::BoolishValueParser::new(), default_value_t = false)]
    pub keep: bool,
}

/// Runs it. An error if anything that was expected did not happen.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let scratch = Scratch::new("demo")?;
    let cluster = Cluster::start(scratch.path()).await?;
    let mut machines = cluster.boot().await?;
    let outcome = tokio::select! {
        outcome = scenarios(arguments, &cluster) => outcome,
        failed = cluster::tend(&mut machines) => Err(failed),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            bail!("interrupted");
        }
    };
    let anew = arguments.reset.then_some(reset::MACHINE);
    let outcome = outcome.and_then(|()| cluster::stages_ran(&machines, anew));
    let outcome = match outcome {
        Err(error) => Err(failed(error, &cluster, &machines).await),
        done => done,
    };
    if arguments.keep {
        keep(&cluster, &mut machines).await?;
    }
    outcome
}

/// Tells all that can be seen, and has the most telling lines in the error: where only the end of an output is kept, they
/// are in it.
async fn failed(error: Error, cluster: &Cluster, machines: &[Machine]) -> Error {
    progress::step(&format!("the demo failed: {error:#}"));
    let short = autopsy::short(cluster, machines).await;
    eprintln!("{}\n{}", autopsy::whole(cluster).await, cluster::consoles(machines));
    anyhow!("{error:#}\n{short}")
}

async fn scenarios(arguments: &Arguments, cluster: &Cluster) -> Result<()> {
    charts::install(cluster).await?;
    manifests::apply(cluster, "workload.yaml").await?;
    let watch = Watch::start(&cluster.control_plane.client(), "workload");
    rollout::workload_available(&watch).await?;
    let mut report = Report::default();
    let mut plans = vec![
        ("upgrade", "upgrade.yaml", Expected::Committed),
        ("configured", "configured.yaml", Expected::Configured),
        ("broken", "broken.yaml", Expected::HealthCheck),
    ];
    if arguments.panic {
        plans.push(("panic", "panic.yaml", Expected::Panic));
    }
    for (name, file, expected) in plans {
        let (scenario, unmet) = rollout::run(cluster, &watch, name, file, expected).await?;
        report.scenarios.push(scenario);
        report.unmet.extend(unmet);
    }
    if arguments.reset {
        reset::run(cluster, &watch).await?;
    }
    report.lowest_available_replicas = watch.seen().lowest_available;
    if report.lowest_available_replicas.is_none_or(|lowest| lowest < 1) {
        report.unmet.push("at least one replica of the workload is available all the time".to_owned());
    }
    report.write(&arguments.report)?;
    println!("\n{}\nreport: {}", report.table(), arguments.report.display());
    if !report.unmet.is_empty() {
        bail!("not as expected:\n  {}", report.unmet.join("\n  "));
    }
    Ok(())
}

async fn keep(cluster: &Cluster, machines: &mut [Machine]) -> Result<()> {
    let kubeconfig = cluster.control_plane.kubeconfig();
    println!(
        "\nEverything keeps running until Ctrl-C. In another terminal:\n\n  export KUBECONFIG={}\n  alias kubectl={}\n  \
         kubectl get nodes,managedosimages,nodeplans\n  kubectl get events --field-selector reason!=Pulled\n  kubectl \
         patch managedosimage fleet --type merge -p '{{\"spec\":{{\"osImage\":\"{}\"}}}}'   # and back again\n\nThe \
         machines' consoles:\n",
        kubeconfig.display(),
        cluster.control_plane.tools().path(crate::tools::Tool::Kubectl).display(),
        cluster.reference(crate::os_image::REPOSITORY, "1"),
    );
    for machine in machines.iter() {
        println!("  tail -f {}", machine.console().display());
    }
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        failed = cluster::tend(machines) => Err(failed),
    }
}
