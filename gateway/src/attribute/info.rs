//! `RequestInfo`, step for step as `RequestInfoFactory.NewRequestInfo` of k8s.io/apiserver v0.36.

use std::borrow::Cow;

use http::Method;
use recorder_user::model::RequestInfo;

use super::{
    AttributeError, Query,
    query::{Plus, unescape},
    selector::{labels_are_valid, parse_fields},
};

/// What the API server will take a request for.
///
/// # Errors
/// When the target is malformed or could be read in two ways.
pub fn request_info(
    method: &Method,
    raw_path: &str,
    raw_query: Option<&str>,
) -> Result<RequestInfo, AttributeError> {
    if method == Method::CONNECT {
        return Err(AttributeError::Connect);
    }
    let path = decode(raw_path)?;
    let query = Query::new(raw_query)?;
    let mut info =
        RequestInfo { verb: method.as_str().to_ascii_lowercase(), ..RequestInfo::default() };
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = if trimmed.is_empty() { vec![] } else { trimmed.split('/').collect() };
    match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => {
            info.api_prefix = "api".to_owned();
            resource(&mut info, method, version, rest, query)?;
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            info.api_prefix = "apis".to_owned();
            info.api_group = (*group).to_owned();
            resource(&mut info, method, version, rest, query)?;
        }
        // The API server notes the prefix before it finds that the version's resource is missing.
        ["apis", _, _] => info.api_prefix = "apis".to_owned(),
        _ => {}
    }
    info.path = path;
    Ok(info)
}

/// Decodes a raw path and refuses what two parsers could read differently.
fn decode(raw: &str) -> Result<String, AttributeError> {
    if !raw.starts_with('/') {
        return Err(AttributeError::NotAPath);
    }
    let bytes = unescape(raw, Plus::IsPlus).ok_or(AttributeError::PercentEncoding)?;
    if bytes.iter().any(u8::is_ascii_control) {
        return Err(AttributeError::ControlCharacter);
    }
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    if slashes(&bytes) != slashes(raw.as_bytes()) {
        return Err(AttributeError::EncodedSlash);
    }
    let path = String::from_utf8(bytes.into_owned())
        .map_err(|_| AttributeError::NotText { what: "path" })?;
    // One trailing slash is the API server's to trim; the slash in front is the path's own.
    let inner = path.strip_prefix('/').unwrap_or(&path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if !inner.is_empty() {
        for segment in inner.split('/') {
            match segment {
                "" => return Err(AttributeError::EmptySegment),
                "." | ".." => return Err(AttributeError::DotSegment),
                _ => {}
            }
        }
    } else if path.len() > 1 {
        return Err(AttributeError::EmptySegment);
    }
    Ok(path)
}

/// Fills in a request for a resource; `parts` are those behind the version, at least one.
fn resource(
    info: &mut RequestInfo,
    method: &Method,
    version: &str,
    mut parts: &[&str],
    query: Query<'_>,
) -> Result<(), AttributeError> {
    info.is_resource_request = true;
    info.api_version = version.to_owned();

    // `/watch/…` and `/proxy/…`: the verb is a part of the path, and selectors are not honoured.
    let mut verb_in_path = false;
    if let ["watch" | "proxy", rest @ ..] = parts {
        if rest.is_empty() {
            return Err(AttributeError::NoResource);
        }
        if parts[0] == "watch" && method != Method::GET && method != Method::HEAD {
            return Err(AttributeError::WatchMethod);
        }
        info.verb = parts[0].to_owned();
        parts = rest;
        verb_in_path = true;
    } else {
        info.verb = verb_of(method).to_owned();
    }

    if let ["namespaces", namespace, rest @ ..] = parts {
        info.namespace = (*namespace).to_owned();
        // `status` and `finalize` are subresources of the namespace; all else is a resource in it.
        if !matches!(rest, [] | ["status" | "finalize", ..]) {
            parts = rest;
        }
    }
    info.parts = parts.iter().map(|part| (*part).to_owned()).collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
    info.resource = part(0);
    info.name = part(1);
    if info.verb != "proxy" {
        info.subresource = part(2);
    }

    if info.name.is_empty() && info.verb == "get" {
        let options = ListOptions::decode(query);
        info.verb = if options.watch { "watch" } else { "list" }.to_owned();
        info.name = options.name;
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection".to_owned();
    }
    if !verb_in_path && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        info.field_selector = text(query, "fieldSelector", "field selector")?;
        info.label_selector = text(query, "labelSelector", "label selector")?;
    }
    Ok(())
}

/// Methods are case-sensitive; one that the API server does not map gives an empty verb.
fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn text(query: Query<'_>, name: &str, what: &'static str) -> Result<String, AttributeError> {
    let value = query.first(name).unwrap_or_default().into_owned();
    String::from_utf8(value).map_err(|_| AttributeError::NotText { what })
}

/// What `RequestInfo` takes from the list options of a query.
#[derive(Default)]
struct ListOptions {
    watch: bool,
    /// From the field selector `metadata.name=…`; empty where it does not require one.
    name: String,
}

impl ListOptions {
    fn decode(query: Query<'_>) -> Self {
        if query.is_empty() {
            return Self::default();
        }
        let Some(name) = Self::name(query) else {
            // One undecodable option and the API server drops all of them, but for the watch, which it then
            // reads in a slightly different way.
            let watch = query.first("watch").is_some_and(|value| {
                let lower = value.to_ascii_lowercase();
                lower != b"0" && lower != b"false"
            });
            return Self { watch, name: String::new() };
        };
        Self { watch: query.is_true("watch"), name }
    }

    /// None when any option does not decode.
    fn name(query: Query<'_>) -> Option<String> {
        let value = |name: &str| query.first(name).unwrap_or(Cow::Borrowed(b""));
        for number in ["timeoutSeconds", "limit"] {
            if let Some(value) = query.first(number) {
                std::str::from_utf8(&value).ok()?.parse::<i64>().ok()?;
            }
        }
        let labels = value("labelSelector");
        if !labels_are_valid(std::str::from_utf8(&labels).ok()?) {
            return None;
        }
        let fields = value("fieldSelector");
        let fields = parse_fields(std::str::from_utf8(&fields).ok()?).ok()?;
        let name = fields.into_iter().find(|term| term.field == "metadata.name" && term.equal);
        Some(name.map(|term| term.value).filter(|name| is_path_segment(name)).unwrap_or_default())
    }
}

/// `content.IsPathSegmentName`: what may be a name in a path.
fn is_path_segment(name: &str) -> bool {
    name != "." && name != ".." && !name.contains(['/', '%'])
}
