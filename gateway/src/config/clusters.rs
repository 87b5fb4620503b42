//! The clusters behind the gateway, and where their credentials are.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Certificates, authentication::https_url, kubeconfig, problem::Problems, raw};

/// One cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name in paths, metrics and recordings.
    pub name: String,
    /// The API server.
    pub server: Server,
    /// Who vouches for the API server's certificate; none means the platform's roots.
    pub certificate_authority: Option<Certificates>,
    /// What the gateway itself authenticates with.
    pub credential: Credential,
    /// Whether it serves paths without a `/clusters` prefix. Exactly one cluster does.
    pub default: bool,
}

/// Where the API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What goes before every path: empty, or for example `/k8s/clusters/c-1`.
    pub base_path: String,
    /// The name that its certificate must have, where that is not `host`.
    pub tls_server_name: Option<String>,
}

impl Server {
    /// Host and port as in a `Host` header or an `:authority`.
    #[must_use]
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }

    /// The name that its certificate must have.
    #[must_use]
    pub fn certificate_name(&self) -> &str {
        self.tls_server_name.as_deref().unwrap_or(&self.host)
    }

    pub(super) fn parse(
        path: &str,
        given: &str,
        tls_server_name: Option<String>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let url = https_url(path, given, problems)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Some(Self {
            host,
            port: url.port().unwrap_or(443),
            base_path: url.path().trim_end_matches('/').to_owned(),
            tls_server_name,
        })
    }
}

/// What the gateway itself authenticates with: where it is, never what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token in a file, read again when it changes.
    TokenFile(PathBuf),
    /// A client certificate.
    ClientCertificate {
        /// The PEM file of the certificate.
        certificate: PathBuf,
        /// The PEM file of the key.
        key: PathBuf,
    },
    /// The user of a context in a kubeconfig.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context's name; none means the current one.
        context: Option<String>,
    },
    /// The service account that the pod runs as.
    InCluster,
}

/// The environment, so that tests can have their own.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn validate(
    given: Option<Value>,
    directory: &Path,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Vec<Cluster> {
    let path = "clusters";
    let hint = "list at least one cluster with name, server and credential";
    let Some(entries) = problems.required::<Vec<Value>>(path, given, hint) else {
        return Vec::new();
    };
    let count = entries.len();
    if count > CLUSTERS_MAX {
        problems.add(path, format!("at most {CLUSTERS_MAX} clusters are supported"));
    }
    let mut clusters: Vec<Cluster> = Vec::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(cluster) = cluster(&path, entry, directory, environment, problems) else {
            continue;
        };
        if let Some(j) = clusters.iter().position(|other| other.name == cluster.name) {
            problems.add(format!("{path}.name"), format!("is the same as that of clusters[{j}]"));
        }
        clusters.push(cluster);
    }
    // Clusters with mistakes of their own are missing here, so the count of entries decides.
    if count == 1 {
        clusters.iter_mut().for_each(|cluster| cluster.default = true);
    } else if count == clusters.len() && count > 1 {
        match clusters.iter().filter(|cluster| cluster.default).count() {
            1 => {}
            0 => problems.add(path, "with several clusters, one must have `default: true`"),
            n => problems.add(path, format!("{n} clusters have `default: true`; only one may")),
        }
    }
    if count == 0 {
        problems.add(path, "is empty: list at least one cluster");
    }
    clusters
}

fn cluster(
    path: &str,
    given: Value,
    directory: &Path,
    environment: Environment<'_>,
    problems: &mut Problems,
) -> Option<Cluster> {
    let raw: raw::Cluster = problems.shape(path, given)?;
    if !is_name(&raw.name) {
        problems.add(
            format!("{path}.name"),
            format!(
                "`{}` must be 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end",
                raw.name.escape_debug()
            ),
        );
    }
    let credential = credential(&format!("{path}.credential"), raw.credential, directory, problems);
    let explicit = raw.server.as_deref().and_then(|server| {
        Server::parse(&format!("{path}.server"), server, raw.tls_server_name.clone(), problems)
    });
    let authority = raw.certificate_authority.and_then(|value| {
        Certificates::configured(&value, directory)
            .map_err(|m| problems.add(format!("{path}.certificateAuthority"), m))
            .ok()
    });
    let credential = credential?;
    let (found_server, found_authority) = match &credential {
        Credential::Kubeconfig { file, context } => {
            let place = format!("{path}.credential.kubeconfig");
            kubeconfig::cluster_of(&place, file, context.as_deref(), problems)?
        }
        Credential::InCluster => in_cluster(path, environment, authority.is_none(), problems),
        Credential::TokenFile(_) | Credential::ClientCertificate { .. } => (None, None),
    };
    let server = if raw.server.is_some() { explicit } else { found_server };
    if raw.server.is_none() && server.is_none() {
        problems.add(format!("{path}.server"), "is required: the API server's https:// URL");
    }
    Some(Cluster {
        name: raw.name,
        server: server?,
        certificate_authority: authority.or(found_authority),
        credential,
        default: raw.default,
    })
}

fn in_cluster(
    path: &str,
    environment: Environment<'_>,
    needs_authority: bool,
    problems: &mut Problems,
) -> (Option<Server>, Option<Certificates>) {
    let host = environment("KUBERNETES_SERVICE_HOST").unwrap_or("kubernetes.default.svc".into());
    let port = environment("KUBERNETES_SERVICE_PORT_HTTPS")
        .or_else(|| environment("KUBERNETES_SERVICE_PORT"))
        .and_then(|port| port.parse().ok())
        .unwrap_or(443);
    let server = Server { host, port, base_path: String::new(), tls_server_name: None };
    let authority = needs_authority
        .then(|| Certificates::read(Path::new(IN_CLUSTER_CA)))
        .transpose()
        .map_err(|m| problems.add(format!("{path}.credential.inCluster"), m))
        .ok()
        .flatten();
    (Some(server), authority)
}

fn credential(
    path: &str,
    given: Option<Value>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<Credential> {
    const CHOICES: &str =
        "{tokenFile}, {clientCertificate, clientKey}, {kubeconfig, context} or {inCluster: true}";
    let raw: raw::Credential =
        problems.required(path, given, &format!("the gateway's own credential: {CHOICES}"))?;
    if raw.forwarder.is_some() {
        problems.add(
            format!("{path}.forwarder"),
            format!("forwarders are not part of this version; use {CHOICES}"),
        );
        return None;
    }
    if raw.context.is_some() && raw.kubeconfig.is_none() {
        problems.add(format!("{path}.context"), "needs `kubeconfig`");
    }
    let in_cluster = raw.in_cluster == Some(true);
    let file = |key: &str, value: &str, problems: &mut Problems| {
        readable(&format!("{path}.{key}"), &directory.join(value), problems)
    };
    match (raw.token_file, raw.client_certificate, raw.client_key, raw.kubeconfig, in_cluster) {
        (Some(token), None, None, None, false) => {
            Some(Credential::TokenFile(file("tokenFile", &token, problems)?))
        }
        (None, Some(certificate), Some(key), None, false) => {
            let certificate = file("clientCertificate", &certificate, problems);
            let key = file("clientKey", &key, problems);
            Some(Credential::ClientCertificate { certificate: certificate?, key: key? })
        }
        (None, None, None, Some(kubeconfig), false) => Some(Credential::Kubeconfig {
            file: file("kubeconfig", &kubeconfig, problems)?,
            context: raw.context,
        }),
        (None, None, None, None, true) => Some(Credential::InCluster),
        _ => {
            problems.add(path, format!("must be exactly one of {CHOICES}"));
            None
        }
    }
}

/// The path, if it is a file that can be opened.
pub(super) fn readable(key: &str, path: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let opened = std::fs::File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(metadata) if metadata.is_file() => return Some(path.to_path_buf()),
        Ok(_) => problems.add(key, format!("{} is not a file", path.display())),
        Err(error) => problems.add(key, format!("cannot read {}: {error}", path.display())),
    }
    None
}

/// A name that stands in a path and in a metric's label.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

pub(super) const IN_CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const IN_CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// More is refused: each has its own connection pools and metrics.
const CLUSTERS_MAX: usize = 256;
