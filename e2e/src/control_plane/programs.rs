//! The command line of each program.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use super::Options;
use crate::process::Service;

/// Files in the control plane's folder.
pub const AUDIT_POLICY: &str = "audit-policy.yaml";
pub const AUDIT_LOG: &str = "audit.log";

pub fn etcd(program: &Path, folder: &Path, port: u16, peer_port: u16) -> Result<Service> {
    let (url, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(program);
    command
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        // What a power cut would lose is not missed: the data goes with its owner.
        .args(["--unsafe-no-fsync", "--log-level", "warn"]);
    Service::start("etcd", command, &folder.join("etcd.log"))
}

pub fn api_server(program: &Path, options: &Options, port: u16, etcd_port: u16) -> Result<Service> {
    let folder = &options.folder;
    let pki = |name: &str| folder.join("pki").join(name).display().to_string();
    let mut command = Command::new(program);
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .arg(format!("--secure-port={port}"))
        .arg(format!("--tls-cert-file={}", pki("server.crt")))
        .arg(format!("--tls-private-key-file={}", pki("server.key")))
        .arg(format!("--service-account-key-file={}", pki("accounts.pub")))
        .arg(format!("--service-account-signing-key-file={}", pki("accounts.key")))
        .arg(format!("--token-auth-file={}", folder.join("tokens.csv").display()))
        .args([
            "--bind-address=127.0.0.1",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--allow-privileged=true",
            // A loopback address cannot be an endpoint of the Service.
            "--endpoint-reconciler-type=none",
            "--profiling=false",
        ]);
    if options.audit_policy.is_some() {
        command
            .arg(format!("--audit-policy-file={}", folder.join(AUDIT_POLICY).display()))
            .arg(format!("--audit-log-path={}", folder.join(AUDIT_LOG).display()))
            // In MB. A log that is rotated is read in parts, and the oldest part may be gone.
            .arg("--audit-log-maxsize=100000");
    }
    if options.keep_history {
        command.args(["--storage-media-type=application/json", "--etcd-compaction-interval=0"]);
    }
    Service::start("kube-apiserver", command, &folder.join("kube-apiserver.log"))
}

pub fn controller_manager(
    program: &Path,
    folder: &Path,
    controllers: &str,
    node_grace_period: Duration,
) -> Result<Service> {
    let pki = |name: &str| folder.join("pki").join(name).display().to_string();
    let mut command = Command::new(program);
    command
        .arg(format!("--kubeconfig={}", folder.join("kubeconfig").display()))
        .arg(format!("--service-account-private-key-file={}", pki("accounts.key")))
        .arg(format!("--root-ca-file={}", pki("ca.crt")))
        .arg(format!("--controllers={controllers}"))
        .arg(format!("--node-monitor-grace-period={}s", node_grace_period.as_secs()))
        .args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"]);
    Service::start("kube-controller-manager", command, &folder.join("kube-controller-manager.log"))
}

pub fn scheduler(program: &Path, folder: &Path) -> Result<Service> {
    let mut command = Command::new(program);
    command
        .arg(format!("--kubeconfig={}", folder.join("kubeconfig").display()))
        .args(["--leader-elect=false", "--secure-port=0"]);
    Service::start("kube-scheduler", command, &folder.join("kube-scheduler.log"))
}

/// The first thing that anybody waits for: without it no pod can be made.
pub async fn default_account(client: Client) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
    accounts.get_opt("default").await?.context("the service account `default` is not there yet")?;
    Ok(())
}
