//! The `Status` documents that the gateway writes in its own name.

use bytes::Bytes;
use serde::Serialize;

use super::{kubernetes, protobuf, watch::Framing};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    message: &'a str,
    reason: &'a str,
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct WatchEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    object: Status<'a>,
}

impl<'a> Status<'a> {
    fn failure(code: u16, reason: &'a str, message: &'a str) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message,
            reason,
            code,
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers in structs have no way to fail")
}

/// A failure as a JSON `Status` document, as the API server answers.
#[must_use]
pub fn body(code: u16, reason: &str, message: &str) -> Bytes {
    json(&Status::failure(code, reason, message)).into()
}

/// A failure as a protobuf `Status` in the envelope.
#[must_use]
pub fn protobuf_body(code: u16, reason: &str, message: &str) -> Bytes {
    let mut status = Vec::new();
    protobuf::write_bytes(1, &[], &mut status);
    protobuf::write_bytes(2, b"Failure", &mut status);
    protobuf::write_bytes(3, message.as_bytes(), &mut status);
    protobuf::write_bytes(4, reason.as_bytes(), &mut status);
    protobuf::write_number(6, code.into(), &mut status);
    kubernetes::envelope("v1", "Status", &status).into()
}

/// One watch frame with an `ERROR` event, in the framing of the response: the last event of a watch
/// that the gateway cuts. Empty where the framing is not known; then the stream just ends.
#[must_use]
pub fn error_event(content_type: Option<&str>, code: u16, reason: &str, message: &str) -> Bytes {
    match Framing::of(content_type) {
        Some(Framing::Json) => {
            let object = Status::failure(code, reason, message);
            let mut frame = json(&WatchEvent { kind: "ERROR", object });
            frame.push(b'\n');
            frame.into()
        }
        Some(Framing::Protobuf) => {
            let mut extension = Vec::new();
            protobuf::write_bytes(1, &protobuf_body(code, reason, message), &mut extension);
            let mut event = Vec::new();
            protobuf::write_bytes(1, b"ERROR", &mut event);
            protobuf::write_bytes(2, &extension, &mut event);
            let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
            let mut frame = length.to_be_bytes().to_vec();
            frame.extend_from_slice(&event);
            frame.into()
        }
        None => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        kubernetes::{Document, StatusFacts},
        watch::Splitter,
    };

    fn frame_of(content_type: &str) -> Bytes {
        let frame = error_event(Some(content_type), 410, "Expired", "too \"old\"");
        let framing = Framing::of(Some(content_type)).expect("known");
        let mut frames = Vec::new();
        Splitter::new(framing).push(&frame, &mut frames).expect("small");
        assert_eq!(frames.len(), 1);
        frames.remove(0)
    }

    fn check(document: &Document) {
        assert_eq!(document.event, "ERROR");
        assert_eq!((document.api_version.as_str(), document.kind.as_str()), ("v1", "Status"));
        let facts = StatusFacts {
            status: "Failure".into(),
            reason: "Expired".into(),
            code: 410,
            ..StatusFacts::default()
        };
        assert_eq!(document.status, facts);
    }

    #[test]
    fn error_events_read_back() {
        check(&Document::from_json(&frame_of("application/json")));
        let frame = frame_of("application/vnd.kubernetes.protobuf;stream=watch");
        check(&Document::from_watch_protobuf(&frame).expect("own bytes"));
        assert!(error_event(Some("application/cbor-seq"), 410, "Expired", "").is_empty());
    }

    #[test]
    fn body_is_what_the_api_server_writes() {
        assert_eq!(
            body(403, "Forbidden", "no"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403}"#
        );
        let document =
            Document::from_protobuf(&protobuf_body(403, "Forbidden", "no")).expect("own");
        assert_eq!(document.status.code, 403);
    }
}
