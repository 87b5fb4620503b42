//! `gateway kubeconfig`: what a client needs. Only the server URL differs from what it had.

use std::fs;

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{attribute, config::Config};

/// What the kubeconfig is for.
pub struct Request<'a> {
    /// The gateway's address as clients reach it, `https://HOST:PORT`; none: from `listen`.
    pub server: Option<&'a str>,
    /// The cluster; none: the default one.
    pub cluster: Option<&'a str>,
    /// The task label: parallel agents of one principal share a session without it.
    pub task: Option<&'a str>,
    /// File that clients verify the gateway with; none: the gateway's own certificate chain.
    pub certificate_authority: Option<&'a std::path::Path>,
}

/// The kubeconfig as YAML (JSON, which is YAML). It holds no token: the user's entry is to be filled by
/// `kubectl config set-credentials` or an exec plugin.
///
/// # Errors
/// When the cluster does not exist or the task is malformed.
pub fn kubeconfig(config: &Config, request: &Request<'_>) -> anyhow::Result<String> {
    let Some(cluster) = config.cluster(request.cluster) else {
        let names: Vec<_> = config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        bail!("no such cluster; choose one of {names:?} with --cluster");
    };
    let mut server = match request.server {
        Some(server) => server.trim_end_matches('/').to_owned(),
        None => format!("https://{}", reachable(config.listen)),
    };
    if !cluster.default || request.cluster.is_some() {
        server.push_str("/clusters/");
        server.push_str(&cluster.name);
    }
    if let Some(task) = request.task {
        if !attribute::is_task(task) {
            bail!("the task {task:?} must be 1 to 63 of A-Z a-z 0-9 . _ -");
        }
        server.push_str("/tasks/");
        server.push_str(task);
    }
    let authority = request.certificate_authority.unwrap_or(&config.tls.certificate);
    let pem = fs::read(authority).with_context(|| format!("read {}", authority.display()))?;
    let document = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "decklog",
        "clusters": [{"name": "decklog", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(pem),
        }}],
        "contexts": [{"name": "decklog", "context": {"cluster": "decklog", "user": "decklog"}}],
        "users": [{"name": "decklog", "user": {}}],
    });
    Ok(format!("{document:#}\n"))
}

/// An address that a client on this machine can use.
fn reachable(listen: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
