//! Who may come in by a token.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use uuid::Uuid;

/// A user with a token of his own.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The token.
    pub token: String,
    /// The user's name.
    pub user: String,
    /// His group.
    pub group: &'static str,
}

impl Identity {
    /// Somebody who may do everything.
    pub fn admin() -> Self {
        Self { token: token(), user: "e2e-admin".to_owned(), group: "system:masters" }
    }

    /// A node's kubelet.
    pub fn node(name: &str) -> Self {
        Self { token: token(), user: Self::node_user(name), group: "system:nodes" }
    }

    /// The user name of a node's kubelet.
    pub fn node_user(name: &str) -> String {
        format!("system:node:{name}")
    }
}

fn token() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The API server's token file.
pub fn write_tokens<'a>(path: &Path, identities: impl Iterator<Item = &'a Identity>) -> Result<()> {
    let lines: Vec<String> = identities
        .map(|Identity { token, user, group }| format!("{token},{user},{user},\"{group}\"\n"))
        .collect();
    fs::write(path, lines.concat()).with_context(|| format!("write {}", path.display()))
}
