//! Watches one exchange and keeps what the decision needs.

use std::sync::Arc;

use super::{
    EffectResult,
    decide::{Facts, of},
};
use crate::{
    model::{RequestHead, RequestInfo, ResponseHead},
    wire::{
        Media,
        gzip::{Gunzip, GunzipError},
        json::JsonError,
        kubernetes::{Document, JsonReader},
    },
};

/// Bytes kept of a protobuf body. Metadata comes first in objects; of longer lists the objects so far
/// are named and counted. JSON is read as it streams and needs no prefix.
const PROTOBUF_PREFIX_BYTES_MAX: usize = 1 << 20;

/// Watches the bodies of one exchange. Costs nothing for those that only read.
pub struct Observer {
    info: Arc<RequestInfo>,
    query_dry_run: bool,
    request: Reader,
    request_bytes: u64,
    status: Option<u16>,
    response: Reader,
}

impl Observer {
    /// For a request that is about to be forwarded.
    #[must_use]
    pub fn new(info: &Arc<RequestInfo>, head: &RequestHead) -> Self {
        let request = if asks_in_body(info) { Reader::new(&head.headers) } else { Reader::None };
        Self {
            query_dry_run: is_dry_run(&head.target),
            info: Arc::clone(info),
            request,
            request_bytes: 0,
            status: None,
            response: Reader::None,
        }
    }

    /// The next bytes of the request's body.
    pub fn request_chunk(&mut self, bytes: &[u8]) {
        self.request_bytes += bytes.len() as u64;
        self.request.push(bytes);
    }

    /// The API server answered.
    pub fn response_started(&mut self, head: &ResponseHead) {
        self.status = Some(head.status);
        if self.info.may_change() && (200..300).contains(&head.status) {
            self.response = Reader::new(&head.headers);
        }
    }

    /// The next bytes of the response's body.
    pub fn response_chunk(&mut self, bytes: &[u8]) {
        self.response.push(bytes);
    }

    /// The exchange ended, in whatever way.
    #[must_use]
    pub fn finish(self) -> EffectResult {
        let (request, response) = (self.request.finish(), self.response.finish());
        let facts = Facts {
            query_dry_run: self.query_dry_run,
            request_has_body: self.request_bytes > 0,
            request: request.as_ref(),
            status: self.status,
            response: response.as_ref(),
        };
        of(&self.info, facts)
    }
}

/// Reads the facts of one body.
enum Reader {
    /// Nothing is read: not needed, not decodable, or damaged.
    None,
    Body {
        gunzip: Option<Box<Gunzip>>,
        form: Form,
    },
}

enum Form {
    Json(Box<JsonReader>),
    Protobuf { prefix: Vec<u8>, cut: bool },
}

/// Why reading stopped; what was read before still counts.
struct Stop;

impl From<GunzipError> for Stop {
    fn from(_: GunzipError) -> Self {
        Self
    }
}

impl From<JsonError> for Stop {
    fn from(_: JsonError) -> Self {
        Self
    }
}

impl Reader {
    fn new(headers: &[(String, String)]) -> Self {
        let value = |name: &str| {
            headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        let form = match Media::of(value("content-type")) {
            Media::Json | Media::Yaml => Form::Json(Box::default()),
            Media::Protobuf => Form::Protobuf { prefix: Vec::new(), cut: false },
            Media::Other => return Self::None,
        };
        let gunzip = match value("content-encoding").map(|value| value.trim().to_ascii_lowercase())
        {
            None => None,
            Some(encoding) if encoding.is_empty() || encoding == "identity" => None,
            Some(encoding) if encoding == "gzip" || encoding == "x-gzip" => Some(Box::default()),
            Some(_) => return Self::None,
        };
        Self::Body { gunzip, form }
    }

    fn push(&mut self, bytes: &[u8]) {
        let Self::Body { gunzip, form } = self else { return };
        let pushed = match gunzip {
            None => form.push(bytes),
            Some(inflater) => inflater.push(bytes, |plain| form.push(plain)),
        };
        if pushed.is_err() {
            form.stop();
            // The gzip state is of no use after an error, and must not be fed again.
            *gunzip = None;
        }
    }

    fn finish(self) -> Option<Document> {
        match self {
            Self::None => None,
            Self::Body { form: Form::Json(reader), .. } => Some(reader.finish()),
            Self::Body { form: Form::Protobuf { prefix, cut }, .. } => {
                let mut document = Document::from_protobuf(&prefix).ok()?;
                document.complete &= !cut;
                Some(document)
            }
        }
    }
}

impl Form {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self {
            Self::Json(reader) => reader.push(bytes)?,
            Self::Protobuf { prefix, cut } => {
                let room = PROTOBUF_PREFIX_BYTES_MAX - prefix.len();
                if *cut || bytes.len() > room {
                    *cut = true;
                }
                prefix.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        match self {
            Self::Json(reader) => reader.stop(),
            Self::Protobuf { cut, .. } => *cut = true,
        }
    }
}

/// Whether the request's body decides: options of deletions, the version an update starts from, the pod
/// that is bound.
fn asks_in_body(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "delete" | "deletecollection" | "update")
        || matches!(info.subresource.as_str(), "eviction" | "binding")
        || info.resource == "bindings"
}

/// Whether the query holds `dryRun=All`, decoded as the API server does. Other values are refused by it.
fn is_dry_run(target: &str) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        decodes_to(name, b"dryRun") && decodes_to(value, b"All")
    })
}

/// Whether `text`, percent-decoded, is `expected`.
fn decodes_to(text: &str, expected: &[u8]) -> bool {
    let mut bytes = text.bytes();
    let mut expected = expected.iter();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || bytes.next().and_then(|byte| (byte as char).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return false,
            }
        } else {
            byte
        };
        if expected.next() != Some(&byte) {
            return false;
        }
    }
    expected.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::is_dry_run;

    #[test]
    fn dry_run_in_the_query() {
        for (target, expected) in [
            ("/x?dryRun=All", true),
            ("/x?a=b&dryRun=All&c", true),
            ("/x?dry%52un=%41ll", true),
            ("/x?dryRun=all", false),
            ("/x?dryRun=", false),
            ("/x?dryRun", false),
            ("/x?dryRun=Al", false),
            ("/x?dryRun=Alll", false),
            ("/x?dryRun=All%", false),
            ("/x?dryrun=All", false),
            ("/dryRun=All", false),
            ("/x?a=?dryRun=All", false),
        ] {
            assert_eq!(is_dry_run(target), expected, "{target}");
        }
    }
}
