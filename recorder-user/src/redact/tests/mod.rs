//! Whole bodies through plan and redactor.

mod bodies;
mod hostile;
mod protobuf;
mod secrets;

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::{BodyPlan, RedactKey, Redactor};
use crate::model::{BodyFacts, Obligations, RequestHead, RequestInfo, ResponseHead};

pub(super) const JSON: &str = "application/json";
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A request for this resource, `parent/sub` for a subresource.
pub(super) fn info(verb: &str, resource: &str) -> RequestInfo {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    RequestInfo {
        is_resource_request: true,
        verb: verb.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: "shop".into(),
        ..RequestInfo::default()
    }
}

fn headers(content_type: &str, encoding: &str) -> Vec<(String, String)> {
    let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
    if !encoding.is_empty() {
        headers.push(("content-encoding".to_owned(), encoding.to_owned()));
    }
    headers
}

pub(super) fn request_plan(info: &RequestInfo, content_type: &str, encoding: &str) -> BodyPlan {
    let head = RequestHead { headers: headers(content_type, encoding), ..RequestHead::default() };
    BodyPlan::request(info, &head, &Obligations::default())
}

pub(super) fn response_plan(
    info: &RequestInfo,
    status: u16,
    content_type: &str,
    encoding: &str,
    obligations: &Obligations,
) -> BodyPlan {
    let method = if info.may_change() { "POST" } else { "GET" };
    let request = RequestHead { method: method.into(), ..RequestHead::default() };
    let head = ResponseHead { status, headers: headers(content_type, encoding) };
    BodyPlan::response(info, &request, &head, obligations)
}

pub(super) fn run(plan: BodyPlan, chunks: &[&[u8]], ended: bool) -> (Vec<u8>, BodyFacts) {
    let key = Arc::new(RedactKey::from_bytes([7; 32]));
    let mut redactor = Redactor::new(plan, key);
    let mut out = Vec::new();
    for chunk in chunks {
        redactor.push(&Bytes::copy_from_slice(chunk), &mut out);
    }
    let facts = redactor.finish(ended, &mut out);
    let stored = out.concat();
    assert_eq!(facts.stored_bytes, stored.len() as u64);
    assert_eq!(facts.bytes, chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>());
    let hash = if stored.is_empty() { String::new() } else { blake3::hash(&stored).to_string() };
    assert_eq!(facts.hash, hash);
    (stored, facts)
}

/// A response to a `get` of Secrets, in one piece.
pub(super) fn secrets(body: &[u8]) -> (Vec<u8>, BodyFacts) {
    secrets_as(body, JSON, "")
}

pub(super) fn secrets_as(body: &[u8], content_type: &str, encoding: &str) -> (Vec<u8>, BodyFacts) {
    let info = info("get", "secrets");
    let plan = response_plan(&info, 200, content_type, encoding, &Obligations::default());
    run(plan, &[body], true)
}

pub(super) fn mark(value: &str) -> String {
    RedactKey::mark(RedactKey::from_bytes([7; 32]).hasher().update(value.as_bytes()))
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

pub(super) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
