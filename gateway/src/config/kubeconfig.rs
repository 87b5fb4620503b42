//! The part of a kubeconfig that the gateway can use.
//!
//! Unknown keys are not refused here: other tools keep their own in the same file. What would
//! change who the gateway is, or whom it trusts, is refused by name instead.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{Certificates, Server, problem::Problems};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<Named<ClusterWrap>>,
    #[serde(default)]
    users: Vec<Named<UserWrap>>,
    #[serde(default)]
    contexts: Vec<Named<ContextWrap>>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(flatten)]
    item: T,
}

#[derive(Deserialize)]
struct ClusterWrap {
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
struct UserWrap {
    user: UserEntry,
}

#[derive(Deserialize)]
struct ContextWrap {
    context: ContextEntry,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<Value>,
    auth_provider: Option<Value>,
    #[serde(rename = "as")]
    acting_as: Option<String>,
}

/// What a user of a kubeconfig authenticates with. Holds secrets: it has no `Debug`.
pub(super) enum User {
    Token(String),
    TokenFile(PathBuf),
    ClientCertificate { certificate: Vec<u8>, key: Vec<u8> },
}

fn read(file: &Path) -> Result<Kubeconfig, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    // The library's message would quote the line, which may hold a token: only the place is told.
    serde_saphyr::from_str(&text).map_err(|error| {
        let place = error.location().map_or(String::new(), |at| format!(", line {}", at.line()));
        format!("{}{place}: is not a kubeconfig", file.display())
    })
}

fn find<'a, T>(list: &'a [Named<T>], kind: &str, name: &str) -> Result<&'a T, String> {
    let found = list.iter().find(|named| named.name == name).map(|named| &named.item);
    found.ok_or_else(|| format!("has no {kind} `{name}`"))
}

fn context(config: &Kubeconfig, name: Option<&str>) -> Result<(ClusterEntry, UserEntry), String> {
    let name = name.unwrap_or(&config.current_context);
    if name.is_empty() {
        return Err("has no current-context; name one with `context`".into());
    }
    let context = &find(&config.contexts, "context", name)?.context;
    let cluster = find(&config.clusters, "cluster", &context.cluster)?.cluster.clone();
    let user = find(&config.users, "user", &context.user)?.user.clone();
    Ok((cluster, user))
}

/// Server and CA of a context; checks its user too, so that `gateway check` finds what is wrong.
pub(super) fn cluster_of(
    key: &str,
    file: &Path,
    name: Option<&str>,
    problems: &mut Problems,
) -> Option<(Option<Server>, Option<Certificates>)> {
    let (cluster, user) = match read(file).and_then(|config| context(&config, name)) {
        Ok(found) => found,
        Err(message) => {
            problems.add(key, message);
            return None;
        }
    };
    if let Err(message) = user_of_entry(&user, file) {
        problems.add(key, message);
    }
    if cluster.insecure_skip_tls_verify {
        problems.add(key, "insecure-skip-tls-verify is not supported; give the server's CA");
    }
    if cluster.proxy_url.is_some() {
        problems.add(key, "proxy-url is not supported");
    }
    let server = Server::parse(
        &format!("{key}: server"),
        &cluster.server,
        cluster.tls_server_name,
        problems,
    );
    let authority = bytes(cluster.certificate_authority_data, cluster.certificate_authority, file)
        .and_then(|found| found.map(|pem| Certificates::parse(&pem, Some(file.into()))).transpose())
        .map_err(|message| problems.add(key, format!("certificate-authority: {message}")))
        .ok()?;
    Some((server, authority))
}

/// What the context's user authenticates with.
pub(super) fn user_of(file: &Path, name: Option<&str>) -> Result<User, String> {
    let (_, user) = context(&read(file)?, name)?;
    user_of_entry(&user, file)
}

fn user_of_entry(user: &UserEntry, file: &Path) -> Result<User, String> {
    let unsupported = [
        (user.exec.is_some(), "exec plugins"),
        (user.auth_provider.is_some(), "auth providers"),
        (user.username.is_some() || user.password.is_some(), "user names and passwords"),
        (user.acting_as.is_some(), "impersonation (`as`)"),
    ];
    if let Some((_, what)) = unsupported.iter().find(|(present, _)| *present) {
        return Err(format!(
            "{what} of a kubeconfig are not supported; use a token, a \
             tokenFile or a client certificate"
        ));
    }
    if let Some(token_file) = &user.token_file {
        return Ok(User::TokenFile(beside(file, token_file)));
    }
    if let Some(token) = &user.token {
        return Ok(User::Token(token.clone()));
    }
    let certificate =
        bytes(user.client_certificate_data.clone(), user.client_certificate.clone(), file)
            .map_err(|message| format!("client-certificate: {message}"))?;
    let key = bytes(user.client_key_data.clone(), user.client_key.clone(), file)
        .map_err(|message| format!("client-key: {message}"))?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(User::ClientCertificate { certificate, key }),
        _ => Err("the user has no token, tokenFile or client certificate with key".into()),
    }
}

/// Data in the file comes before a path, as in client-go.
fn bytes(
    data: Option<String>,
    path: Option<String>,
    file: &Path,
) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        return STANDARD.decode(data.trim()).map(Some).map_err(|_| "is not base64".into());
    }
    path.filter(|path| !path.is_empty())
        .map(|path| {
            let path = beside(file, &path);
            std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        })
        .transpose()
}

fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}
