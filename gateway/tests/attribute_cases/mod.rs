//! Requests on which our attribution is compared with the API server's own (`tests/differential`).

mod corpus;
mod generator;

use gateway::attribute::{AttributeError, request_info, stream_request};
use http::Method;
use recorder_user::model::{RequestInfo, StreamKind, StreamRequest};
use serde::{Deserialize, Serialize};

pub(crate) use self::{corpus::corpus, generator::generate};

/// A request line without its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Case {
    /// Any token.
    pub(crate) method: String,
    /// The raw target.
    pub(crate) url: String,
}

/// What the Go program says of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) info: Option<Info>,
    pub(crate) error: Option<String>,
    /// Of an exec, an attach or a port-forward of a pod.
    pub(crate) stream: Option<Stream>,
    pub(crate) stream_error: Option<String>,
}

/// The options of a stream as the Go program writes them: empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stream {
    container: String,
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    ports: Vec<u16>,
}

impl From<StreamRequest> for Stream {
    fn from(request: StreamRequest) -> Self {
        Self {
            container: request.container.unwrap_or_default(),
            command: request.command,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
            ports: request.ports,
        }
    }
}

/// `RequestInfo` as the Go program writes it: empty fields are left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Info {
    is_resource_request: bool,
    path: String,
    verb: String,
    api_prefix: String,
    api_group: String,
    api_version: String,
    namespace: String,
    resource: String,
    subresource: String,
    name: String,
    parts: Vec<String>,
    field_selector: String,
    label_selector: String,
}

impl From<Info> for RequestInfo {
    fn from(info: Info) -> Self {
        Self {
            is_resource_request: info.is_resource_request,
            path: info.path,
            verb: info.verb,
            api_prefix: info.api_prefix,
            api_group: info.api_group,
            api_version: info.api_version,
            namespace: info.namespace,
            resource: info.resource,
            subresource: info.subresource,
            name: info.name,
            parts: info.parts,
            field_selector: info.field_selector,
            label_selector: info.label_selector,
        }
    }
}

/// How both sides agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// The same attribution.
    Same,
    /// The API server refuses it, and so do we.
    BothRefuse,
    /// The API server would take it; we refuse it on purpose, because others could read it differently.
    WeRefuse,
}

/// What we say of a case.
pub(crate) fn ours(case: &Case) -> Result<(RequestInfo, Option<StreamRequest>), AttributeError> {
    let method = Method::from_bytes(case.method.as_bytes()).map_err(|_| AttributeError::Connect)?;
    let (path, query) =
        case.url.split_once('?').map_or((case.url.as_str(), None), |(p, q)| (p, Some(q)));
    let info = request_info(&method, path, query)?;
    let stream = stream_request(&info, query, false)?;
    Ok((info, stream.filter(|stream| stream.kind != StreamKind::Proxy)))
}

/// Compares our answer with the Go program's.
///
/// # Errors
/// When they differ where they must not.
pub(crate) fn compare(answer: &Answer) -> Result<Agreement, String> {
    let case = Case { method: answer.method.clone(), url: answer.url.clone() };
    let theirs = answer.info.clone().map(RequestInfo::from);
    if theirs.is_some() == answer.error.is_some() {
        return Err(format!("{case:?} has no answer"));
    }
    let stream = (answer.stream.clone(), answer.stream_error.is_some());
    match (ours(&case), theirs) {
        (Ok((ours, asked)), Some(theirs))
            if ours == theirs && (asked.clone().map(Stream::from), false) == stream =>
        {
            Ok(Agreement::Same)
        }
        (Ok(ours), theirs) => {
            Err(format!("{case:?}\n  ours:   {ours:?}\n  theirs: {theirs:?} {stream:?}"))
        }
        (Err(AttributeError::Ports), Some(_)) if stream.1 => Ok(Agreement::BothRefuse),
        (Err(_), None) => Ok(Agreement::BothRefuse),
        (Err(error), Some(theirs)) if !is_on_purpose(&case, &error) => {
            Err(format!("{case:?}\n  ours:   refused: {error}\n  theirs: {theirs:?}"))
        }
        (Err(_), Some(_)) => Ok(Agreement::WeRefuse),
    }
}

/// Whether the raw target shows the reason for which we refuse: our parser's word is not enough.
fn is_on_purpose(case: &Case, error: &AttributeError) -> bool {
    let path = case.url.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let encodes = |byte: u8| path.contains(&format!("%{byte:02x}"));
    match error {
        AttributeError::EncodedSlash => encodes(b'/'),
        AttributeError::DotSegment => {
            path.replace("%2e", ".").split('/').any(|part| part == "." || part == "..")
        }
        AttributeError::EmptySegment => path.contains("//"),
        AttributeError::ControlCharacter => (0..0x20).chain([0x7f]).any(encodes),
        AttributeError::NotText { what: "path" } => (0x80..=0xff).any(encodes),
        AttributeError::NotText { .. } => {
            let query = case.url.split_once('?').unwrap_or_default().1.to_ascii_lowercase();
            (0x80..=0xff).any(|byte| query.contains(&format!("%{byte:02x}")))
        }
        AttributeError::WatchMethod => path.contains("/watch/") && case.method != "GET",
        AttributeError::NotAPath => !path.starts_with('/'),
        AttributeError::Connect => case.method == "CONNECT",
        AttributeError::TooManyParameters => case.url.matches('&').count() >= 10_000,
        AttributeError::PercentEncoding
        | AttributeError::NoResource
        | AttributeError::Ports
        | AttributeError::Prefix { .. } => false,
    }
}
