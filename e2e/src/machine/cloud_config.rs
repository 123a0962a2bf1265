//! What makes one machine of the fleet differ from the next: its name, its credentials, and where its cluster is.

use serde_json::{Value, json};

use super::HOST;

/// Stages in which every machine says on its console that they ran.
pub const STAGES: [&str; 4] = ["after-install", "after-upgrade", "boot", "network"];

/// What it says then.
pub fn ran(stage: &str) -> String {
    format!("the stage {stage} of the cloud-config ran")
}

/// What a machine has to know.
#[derive(Clone, Debug)]
pub struct CloudConfig<'a> {
    /// Name of the machine and of its Node.
    pub name: &'a str,
    /// The kubelet's kubeconfig.
    pub kubeconfig: &'a str,
    /// Port of the image registry on the host.
    pub registry_port: u16,
    /// The sandbox image of pods, as the registry has it.
    pub sandbox_image: &'a str,
}

impl CloudConfig<'_> {
    /// The document.
    pub fn render(&self) -> String {
        let Self { name, kubeconfig, registry_port, sandbox_image } = self;
        let registry = format!("{HOST}:{registry_port}");
        let hosts = format!("server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n");
        let sandbox = format!(
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = \"{sandbox_image}\"\n"
        );
        let file = |path: &str, content: &str, permissions: &str| json!({ "path": path, "content": content, "permissions": permissions });
        let said = STAGES.into_iter().map(|stage| {
            let words = format!("echo '{}' > /dev/console", ran(stage));
            (stage.to_owned(), json!([{ "commands": [words] }]))
        });
        let document = json!({
            "hostname": name,
            "stages": Value::Object(said.collect()),
            "write_files": [
                file("/etc/kubernetes/kubelet.kubeconfig", kubeconfig, "0600"),
                file(&format!("/etc/containerd/certs.d/{registry}/hosts.toml"), &hosts, "0644"),
                file("/etc/containerd/conf.d/sandbox.toml", &sandbox, "0644"),
            ],
        });
        // JSON is YAML.
        format!("#cloud-config\n{document}\n")
    }
}
